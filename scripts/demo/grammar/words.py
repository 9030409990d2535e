"""Word tables of the story grammar.

Everything here was written for this project.  The tables hold small facts
(which trade uses which tool, what a given weather does to a road) so that the
stories can stay consistent with them from the first sentence to the last.
"""

FEMALE_NAMES = """
Ada Agnes Alba Alma Amelia Anna Astrid Beatrix Bella Berta Bridget Carla
Cecily Clara Cora Daisy Dalia Dora Edith Ella Elsa Emma Esther Eva Fern Fiona
Flora Freya Gerda Gina Greta Hana Hattie Hazel Helga Ida Inga Iris Isla Ivy
Jana June Karin Kira Lara Lena Lila Lotte Lucy Mabel Maren Marta Maud Mina
Mira Nadia Nell Nina Nora Olga Opal Paula Pearl Petra Polly Rhea Rita Rosa
Ruth Sadie Selma Sigrid Sonia Stella Tamsin Tess Thea Tilda Una Vera Viola
Wanda Willa Yara Zelda Zora
""".split()

MALE_NAMES = """
Abel Adam Alfred Anders Arlo Arne Basil Benno Boris Bruno Caleb Casper Cedric
Clement Conrad Cyril Dario David Dirk Edgar Edwin Elias Emil Ernest Felix
Finn Floyd Frank Fritz George Gilbert Gregor Gustav Hamish Hans Harold Henry
Hugo Igor Ivan Jacob Jasper Joel Jonas Josef Karl Kurt Lars Leo Linus Lorenz
Louis Magnus Marcus Martin Matteo Milo Moritz Nathan Nils Noel Oliver Oscar
Oswin Otto Owen Pablo Paul Perry Peter Quinn Ralph Ramon Robin Roland Rufus
Samuel Silas Simon Stefan Tobias Theo Thomas Ulric Victor Walter Wilbur Yuri
""".split()

TOWN_HEADS = """
Ash Barley Beck Birch Black Bram Bright Clay Cold Copper Crow Dove Elder Elm
Fair Fern Fox Glen Gold Gray Green Hare Hay Hazel Heron High Honey Iron King
Lamb Lark Linden Long Maple Mill Moss Oak Otter Pine Raven Red Rook Rose Rush
Salt Sand Silver Snow Stone Swan Thorn West White Wild Willow Winter Wolf
""".split()

TOWN_TAILS = """
bridge brook burn bury by cliff combe croft dale den fell field ford gate
grove hall ham haven hill holm hurst land leigh marsh mere mouth pool port
ridge shaw stead ton vale wick wood worth
""".split()

COLOURS = """
red blue green yellow white black brown gray purple orange pink silver golden
crimson scarlet violet turquoise ivory amber copper rusty striped spotted
checkered speckled
""".split()

# trade, workplace, tool, product (plural), what the trade does all day
TRADES = [
    ("baker", "bakery", "rolling pin", "loaves", "kneaded dough"),
    ("smith", "forge", "hammer", "horseshoes", "beat hot iron"),
    ("carpenter", "workshop", "saw", "chairs", "cut planks"),
    ("potter", "pottery", "wheel", "jugs", "shaped wet clay"),
    ("weaver", "weaving house", "loom", "carpets", "wove bright threads"),
    ("fisher", "harbour hut", "net", "baskets of herring", "hauled in fish"),
    ("miller", "mill", "millstone", "sacks of flour", "ground the grain"),
    ("tailor", "tailor shop", "needle", "coats", "stitched seams"),
    ("gardener", "greenhouse", "spade", "bunches of tulips", "dug the beds"),
    ("shepherd", "sheepfold", "crook", "fleeces", "watched the flock"),
    ("clockmaker", "clock shop", "tiny screwdriver", "clocks", "set small wheels"),
    ("beekeeper", "bee yard", "smoker", "jars of honey", "tended the hives"),
    ("painter", "studio", "brush", "portraits", "mixed colours"),
    ("cobbler", "cobbler shop", "awl", "boots", "nailed soles"),
    ("glassblower", "glass house", "long pipe", "bottles", "blew molten glass"),
    ("farmer", "barn", "pitchfork", "bales of hay", "worked the fields"),
    ("doctor", "surgery", "stethoscope", "bottles of medicine", "cared for the sick"),
    ("teacher", "school", "piece of chalk", "corrected notebooks", "taught sums"),
    ("librarian", "library", "card box", "mended books", "sorted the shelves"),
    ("cook", "kitchen", "ladle", "pots of soup", "stirred the pans"),
    ("ferryman", "ferry house", "oar", "ferry tickets", "rowed across the river"),
    ("lighthouse keeper", "lighthouse", "brass lamp", "weather notes", "trimmed the wick"),
    ("candlemaker", "candle shop", "dipping frame", "candles", "melted wax"),
    ("barber", "barber shop", "pair of scissors", "neat wigs", "cut hair"),
    ("mason", "stone yard", "chisel", "stone blocks", "squared stones"),
    ("locksmith", "lock shop", "file", "keys", "filed small keys"),
    ("printer", "print shop", "press", "newspapers", "set rows of type"),
    ("saddler", "saddle room", "leather punch", "saddles", "cut leather"),
    ("cheesemaker", "dairy", "curd knife", "wheels of cheese", "pressed curds"),
    ("toymaker", "toy shop", "carving knife", "wooden puppets", "carved toys"),
    ("jeweller", "jewel shop", "magnifying glass", "rings", "polished stones"),
    ("boatbuilder", "boat shed", "plane", "rowing boats", "bent oak ribs"),
    ("basketmaker", "willow shed", "bodkin", "baskets", "plaited willow"),
    ("musician", "music room", "bow", "sheets of music", "practised scales"),
    ("astronomer", "observatory", "telescope", "star maps", "counted stars"),
    ("postmaster", "post office", "stamp", "bundles of letters", "sorted letters"),
    ("butcher", "butcher shop", "cleaver", "strings of sausages", "carved meat"),
    ("brewer", "brewhouse", "mash paddle", "barrels of cider", "filled barrels"),
    ("roofer", "slate yard", "slate hammer", "bundles of slates", "mended roofs"),
    ("mapmaker", "map room", "compass", "maps", "drew coasts"),
    ("ropemaker", "rope walk", "twisting hook", "coils of rope", "twisted hemp"),
    ("apothecary", "herb shop", "mortar", "jars of ointment", "crushed herbs"),
    ("hatter", "hat shop", "steam iron", "hats", "pressed felt"),
    ("innkeeper", "inn", "serving tray", "mugs of ale", "welcomed guests"),
    ("woodcutter", "timber yard", "axe", "stacks of firewood", "felled trees"),
    ("miner", "mine", "pickaxe", "carts of coal", "dug deep tunnels"),
    ("tinker", "tinker cart", "soldering iron", "mended kettles", "patched pans"),
    ("bookbinder", "bindery", "bone folder", "bound books", "sewed pages"),
]

# animal, sound, home, favourite food, family word
ANIMALS = [
    ("dog", "barked", "kennel", "a bone", "puppy"),
    ("cat", "meowed", "basket by the stove", "a saucer of milk", "kitten"),
    ("horse", "neighed", "stable", "a bucket of oats", "foal"),
    ("donkey", "brayed", "shed", "a bunch of thistles", "foal"),
    ("goat", "bleated", "pen", "a heap of clover", "kid"),
    ("sheep", "bleated", "fold", "fresh grass", "lamb"),
    ("pig", "grunted", "sty", "a bowl of turnips", "piglet"),
    ("hen", "clucked", "coop", "a handful of corn", "chick"),
    ("goose", "honked", "yard", "wet lettuce", "gosling"),
    ("duck", "quacked", "pond", "pond weed", "duckling"),
    ("owl", "hooted", "hollow oak", "a fat beetle", "owlet"),
    ("crow", "cawed", "tall elm", "a crust of bread", "fledgling"),
    ("fox", "yelped", "den", "a bunch of grapes", "cub"),
    ("hedgehog", "snuffled", "pile of leaves", "a juicy slug", "hoglet"),
    ("squirrel", "chattered", "nest in the beech", "a hazelnut", "kit"),
    ("rabbit", "thumped", "burrow", "a carrot", "kit"),
    ("frog", "croaked", "ditch", "a dragonfly", "tadpole"),
    ("mouse", "squeaked", "hole in the wall", "a crumb of cheese", "pup"),
    ("bear", "growled", "cave", "a honeycomb", "cub"),
    ("wolf", "howled", "rocky lair", "a bit of ham", "pup"),
    ("swan", "hissed", "reed bed", "soaked barley", "cygnet"),
    ("parrot", "screeched", "brass cage", "a sunflower seed", "chick"),
    ("pony", "whinnied", "paddock", "a sugar lump", "foal"),
    ("otter", "whistled", "river bank", "a silver trout", "pup"),
    ("badger", "snorted", "sett", "a heap of acorns", "cub"),
    ("sparrow", "chirped", "hedge", "millet", "nestling"),
    ("tortoise", "sighed", "rock garden", "a dandelion", "hatchling"),
    ("beaver", "slapped its tail", "lodge", "a willow twig", "kit"),
]

# thing, material, what it is good for
THINGS = [
    ("lantern", "brass", "lighting the way"), ("key", "iron", "opening the old chest"),
    ("ring", "silver", "remembering a promise"), ("scarf", "wool", "keeping out the cold"),
    ("umbrella", "silk", "staying dry"), ("violin", "maple", "playing at weddings"),
    ("flute", "boxwood", "calling the birds"), ("drum", "goatskin", "keeping time"),
    ("kettle", "copper", "making tea"), ("teapot", "china", "pouring for guests"),
    ("compass", "brass", "finding the north"), ("map", "parchment", "choosing the right road"),
    ("kite", "paper", "racing the wind"), ("ball", "leather", "playing in the street"),
    ("doll", "cloth", "falling asleep"), ("whistle", "tin", "calling for help"),
    ("bell", "bronze", "waking the house"), ("mirror", "glass", "sending signals in the sun"),
    ("comb", "horn", "tidying long hair"), ("knife", "steel", "cutting bread"),
    ("cup", "pewter", "drinking cold water"), ("box", "cedar", "hiding small treasures"),
    ("basket", "willow", "carrying eggs"), ("bag", "canvas", "carrying the shopping"),
    ("blanket", "wool", "sleeping outdoors"), ("cloak", "felt", "travelling at night"),
    ("hat", "straw", "working in the sun"), ("pair of gloves", "leather", "handling thorns"),
    ("watch", "gold", "catching the early coach"), ("spyglass", "brass", "looking far out to sea"),
    ("notebook", "paper", "writing down songs"), ("pen", "ivory", "signing letters"),
    ("rope", "hemp", "climbing down cliffs"), ("ladder", "ash wood", "reaching the high branches"),
    ("sled", "oak", "sliding down the hill"), ("wheelbarrow", "pine", "moving heavy stones"),
    ("bucket", "tin", "fetching water"), ("spoon", "wood", "stirring porridge"),
    ("necklace", "pearl", "dancing at the fair"), ("bracelet", "amber", "bringing luck"),
    ("coin", "gold", "paying a debt"), ("medal", "bronze", "showing great courage"),
    ("chessboard", "walnut", "passing long evenings"), ("puppet", "linden wood", "making children laugh"),
    ("music box", "rosewood", "calming the baby"), ("globe", "painted plaster", "dreaming of far lands"),
    ("saddle", "leather", "riding to market"), ("quilt", "patchwork", "warming the bed"),
]

# place (with its article), preposition phrase used when something is there
PLACES = [
    ("the mill", "behind the mill"), ("the old bridge", "under the old bridge"),
    ("the market square", "in the market square"), ("the well", "beside the well"),
    ("the church", "on the church steps"), ("the orchard", "in the orchard"),
    ("the harbour", "on the harbour wall"), ("the station", "on the station bench"),
    ("the barn", "in the barn"), ("the meadow", "in the long grass of the meadow"),
    ("the forest", "at the edge of the forest"), ("the river", "on the bank of the river"),
    ("the schoolyard", "in the schoolyard"), ("the castle ruin", "among the stones of the castle ruin"),
    ("the bakery", "on the bakery counter"), ("the library", "between two shelves in the library"),
    ("the inn", "under a table at the inn"), ("the tower", "at the top of the tower"),
    ("the lake", "on the shore of the lake"), ("the cave", "at the mouth of the cave"),
    ("the garden gate", "next to the garden gate"), ("the town hall", "in front of the town hall"),
    ("the fountain", "at the bottom of the fountain"), ("the stable", "in the straw of the stable"),
    ("the attic", "in the dusty attic"), ("the cellar", "in the dark cellar"),
    ("the hill", "on top of the hill"), ("the crossroads", "at the crossroads"),
    ("the vineyard", "between the vines of the vineyard"), ("the quarry", "at the edge of the quarry"),
    ("the lighthouse", "at the foot of the lighthouse"), ("the beach", "in the sand of the beach"),
    ("the playground", "under the swings of the playground"), ("the post office", "at the post office window"),
    ("the windmill", "below the sails of the windmill"), ("the greenhouse", "behind a pot in the greenhouse"),
    ("the waterfall", "close to the waterfall"), ("the ferry", "on the deck of the ferry"),
    ("the theatre", "in the back row of the theatre"), ("the bath house", "on a hook in the bath house"),
]

# countable goods: singular, plural, where they are kept
GOODS = [
    ("apple", "apples", "basket"), ("pear", "pears", "basket"), ("plum", "plums", "bowl"),
    ("cherry", "cherries", "bowl"), ("peach", "peaches", "crate"), ("egg", "eggs", "basket"),
    ("walnut", "walnuts", "sack"), ("potato", "potatoes", "sack"), ("onion", "onions", "net"),
    ("carrot", "carrots", "crate"), ("turnip", "turnips", "cart"), ("cabbage", "cabbages", "cart"),
    ("pumpkin", "pumpkins", "cart"), ("lemon", "lemons", "bowl"), ("orange", "oranges", "crate"),
    ("bun", "buns", "tray"), ("roll", "rolls", "tray"), ("biscuit", "biscuits", "tin"),
    ("pancake", "pancakes", "plate"), ("tart", "tarts", "tray"), ("fish", "fish", "barrel"),
    ("candle", "candles", "box"), ("button", "buttons", "tin"), ("marble", "marbles", "pouch"),
    ("coin", "coins", "purse"), ("shell", "shells", "jar"), ("feather", "feathers", "hat box"),
    ("bead", "beads", "jar"), ("brick", "bricks", "wheelbarrow"), ("rose", "roses", "vase"),
    ("tulip", "tulips", "vase"), ("letter", "letters", "satchel"), ("book", "books", "trunk"),
    ("stamp", "stamps", "album"), ("ribbon", "ribbons", "drawer"), ("nail", "nails", "box"),
    ("toy soldier", "toy soldiers", "chest"), ("lamp", "lamps", "cupboard"),
    ("mushroom", "mushrooms", "basket"), ("chestnut", "chestnuts", "pan"),
]

# trait, opposite, a deed that shows it, the moral that goes with it
TRAITS = [
    ("kind", "cruel", "shared supper with a stranger", "a kind deed is never lost"),
    ("brave", "timid", "walked into the dark cave alone", "courage grows when it is used"),
    ("patient", "hasty", "waited three days for the bread dough to rise", "good things need time"),
    ("honest", "sly", "gave back a purse full of money", "the truth is the shortest road"),
    ("clever", "foolish", "fixed the pump with a bent spoon", "a good idea is worth more than gold"),
    ("generous", "greedy", "gave away half of the harvest", "a gift makes two people happy"),
    ("careful", "careless", "counted every stitch twice", "care today saves trouble tomorrow"),
    ("cheerful", "gloomy", "sang all through the storm", "a song makes the work lighter"),
    ("humble", "proud", "thanked even the youngest helper", "pride walks in front of a fall"),
    ("hardworking", "lazy", "rose before the sun each day", "work done early is work done well"),
    ("curious", "dull", "asked a hundred questions a day", "those who ask will learn"),
    ("loyal", "faithless", "stayed by a sick friend all winter", "a true friend stays in bad weather"),
    ("gentle", "rough", "carried a snail off the road", "soft hands can open hard doors"),
    ("polite", "rude", "bowed to everyone in the street", "good manners cost nothing"),
    ("thrifty", "wasteful", "saved every bit of string", "small savings grow large"),
    ("stubborn", "fickle", "tried the same lock nine times", "those who keep trying will arrive"),
]

# weather noun, adjective, effect on the road, clothing, how it ends
WEATHERS = [
    ("rain", "rainy", "the road turned to mud", "an oilskin coat", "the clouds broke and a rainbow appeared"),
    ("snow", "snowy", "the path vanished under white drifts", "fur boots", "the snow stopped and everything was silent"),
    ("fog", "foggy", "nobody could see the next house", "a bright sash", "the fog lifted and the hills came back"),
    ("wind", "windy", "branches lay across the road", "a tight cap", "the wind died down at last"),
    ("heat", "hot", "dust rose from the dry road", "a wide straw hat", "a cool breeze came from the sea"),
    ("frost", "frosty", "the stones were slippery with ice", "thick mittens", "the sun melted the ice"),
    ("thunder", "stormy", "lightning flashed above the trees", "a hooded cloak", "the thunder rolled away to the east"),
    ("hail", "rough", "ice balls bounced on the roofs", "a padded hat", "the hail turned into a soft drizzle"),
    ("sunshine", "sunny", "the road was warm and dry", "a light shirt", "the sun went down red and calm"),
    ("drizzle", "gray", "small puddles filled the ruts", "a wool shawl", "a pale moon came out"),
]

SEASONS = {
    "spring": ["rain", "wind", "sunshine", "drizzle", "fog"],
    "summer": ["heat", "sunshine", "thunder", "hail"],
    "autumn": ["fog", "rain", "wind", "drizzle", "frost"],
    "winter": ["snow", "frost", "fog", "wind"],
}

SEASON_SIGNS = {
    "spring": ["the first buds opened", "the swallows came home", "lambs jumped in the fields"],
    "summer": ["the corn stood high", "crickets sang all night", "the days were long"],
    "autumn": ["the leaves turned red", "the geese flew south", "apples fell in the grass"],
    "winter": ["the lake froze over", "smoke rose from every chimney", "the nights were long"],
}

# obstacle, the thing that helps, how it helps
OBSTACLES = [
    ("the bridge had been swept away", "rope", "tied it to an oak and swung across"),
    ("the tunnel was pitch dark", "lantern", "lit it and walked on without fear"),
    ("a heavy gate was locked", "key", "turned it twice until the gate swung open"),
    ("the wall was far too high", "ladder", "leaned it against the stones and climbed over"),
    ("the path split into four", "map", "spread it on a stump and chose the right way"),
    ("thick clouds hid the sun and every direction looked the same", "compass", "followed the needle north"),
    ("thorns had grown across the lane", "knife", "cut a way through the brambles"),
    ("the night was bitterly cold", "blanket", "slept under it until dawn"),
    ("the ferry was on the far bank", "bell", "rang it until the ferryman woke"),
    ("a fierce dog blocked the yard", "flute", "played a tune until the dog fell asleep"),
    ("the spring lay deep between rocks", "bucket", "let it down and drew fresh water"),
    ("the watchman was far away on the tower", "mirror", "flashed the sunlight until he waved back"),
    ("nobody could hear a shout in the gorge", "whistle", "blew it three times until help came"),
    ("a crying child would not go to sleep", "music box", "wound it up and let it play"),
    ("the fallen stones were too heavy to carry", "wheelbarrow", "wheeled them away one by one"),
    ("the snow lay too deep for walking", "sled", "slid down the slope in no time"),
    ("the toll keeper wanted to be paid", "coin", "laid it in his open hand"),
    ("the far shore could not be made out", "spyglass", "looked through it and found a safe landing"),
]

# dish, three ingredients, the vessel, the last step
DISHES = [
    ("apple pie", ["apples", "butter", "cinnamon"], "round tin", "baked it until it was golden"),
    ("onion soup", ["onions", "beef broth", "old bread"], "iron pot", "boiled it for an hour"),
    ("honey cake", ["honey", "almonds", "rye flour"], "square tin", "let it cool on the sill"),
    ("fish stew", ["cod", "leeks", "cream"], "deep kettle", "simmered it slowly"),
    ("pumpkin bread", ["pumpkin", "yeast", "salt"], "long tin", "baked it in the stone oven"),
    ("plum jam", ["plums", "sugar", "lemon juice"], "copper pan", "poured it into jars"),
    ("mushroom pancakes", ["mushrooms", "eggs", "parsley"], "flat pan", "turned them twice"),
    ("bean salad", ["beans", "vinegar", "mustard"], "glass bowl", "left it in the cool cellar"),
    ("cheese dumplings", ["cottage cheese", "wheat flour", "nutmeg"], "steaming pot", "scooped them out when they floated"),
    ("vegetable pie", ["carrots", "peas", "thyme"], "clay dish", "covered it with pastry"),
    ("rice pudding", ["rice", "milk", "vanilla"], "small pot", "stirred it until it was thick"),
    ("nut bread", ["walnuts", "oats", "molasses"], "wooden form", "sliced it while it was warm"),
    ("berry tart", ["raspberries", "custard", "shortcrust"], "fluted dish", "dusted it with sugar"),
    ("barley broth", ["barley", "turnips", "smoked ham"], "black cauldron", "skimmed it with care"),
]

FEELINGS_GOOD = "happy proud glad delighted relieved grateful merry content thankful overjoyed".split()
FEELINGS_BAD = "sad worried angry upset ashamed lonely anxious gloomy puzzled heartbroken".split()

TIMES = ["morning", "afternoon", "evening"]
HOURS = "six seven eight nine ten eleven".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

RELATIONS_F = ["sister", "aunt", "grandmother", "mother", "niece", "cousin", "neighbour", "friend"]
RELATIONS_M = ["brother", "uncle", "grandfather", "father", "nephew", "cousin", "neighbour", "friend"]

WISHES = [
    ("see the sea", "stood on the beach and tasted the salt on the wind"),
    ("learn to swim", "swam across the whole lake without stopping"),
    ("fly a kite from the church tower", "let the kite rise above the golden weathercock"),
    ("own a boat", "pushed a little green boat into the water"),
    ("play in the town band", "marched in the first row of the band"),
    ("climb the highest mountain", "reached the top and saw seven lakes below"),
    ("write a book", "held the first printed copy with both hands"),
    ("plant an orchard", "counted forty young trees in straight rows"),
    ("ride in a balloon", "floated over the roofs in a wicker basket"),
    ("find the end of the rainbow", "found nothing there but a field of poppies, and laughed"),
    ("build a windmill", "watched the four new sails turn for the first time"),
    ("taste snow from the glacier", "ate a spoonful of blue snow"),
    ("read every book in the library", "closed the very last book with a smile"),
    ("bake the largest loaf in the land", "pulled out a loaf as long as a door"),
    ("dance at the palace", "danced until the candles burned low"),
    ("tame a wild pony", "rode home through the fields without a saddle"),
    ("sail around the island", "came back to the harbour from the other side"),
    ("open a small shop", "hung a painted sign above the door"),
    ("hear the nightingale", "heard the bird sing in the moonlit garden"),
    ("count the stars", "fell asleep somewhere after nine hundred"),
]

NUMBERS = """
zero one two three four five six seven eight nine ten eleven twelve thirteen
fourteen fifteen sixteen seventeen eighteen nineteen twenty
""".split()

TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
