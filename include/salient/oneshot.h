#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "salient/error.h"
#include "salient/recipe.h"
#include "salient/scheme.h"

namespace salient {

/// What the next layer is calibrated on.
enum class Propagation {
  quantized,  ///< the outputs of the layers as quantized so far (llm-compressor's propagate_error)
  original,   ///< the outputs of the original layers (AutoAWQ)
};

/// How much is done for accuracy where the recipe leaves it open; docs/quantization.md says what each costs
/// and gains.
enum class Effort {
  fast,      ///< Rounding::nearest, Propagation::original
  standard,  ///< Rounding::compensated
  best,      ///< Rounding::matched
};

/// Arithmetic of the calibration forward pass, its statistics and the products of the search. Sums over
/// rows and columns are f64.
enum class CalibrationPrecision {
  automatic,  ///< bf16 where the CPU multiplies it natively, else f32
  f32,
};

/// Which tokens the statistics of an expert come from.
enum class ExpertCalibration {
  all,  ///< every token, as if each were routed to every expert (llm-compressor's moe_calibrate_all_experts)
  routed,  ///< those that the router sends to it; an expert that sees too few takes those of all tokens
};

/// How the documents of a data set become sequences.
enum class DocumentPolicy {
  automatic,    ///< texts are joined and cut into windows; documents of token ids are sequences as they are
  concatenate,  ///< all are joined and cut into windows of max_seq_length, a rest that fills none left out
  truncate,     ///< each is a sequence of its own, cut to max_seq_length
};

/// One source of calibration data.
struct CalibrationDataset {
  /// A .txt file (one document), a .jsonl file (one a line: a text, or token ids), a .json file (a list of
  /// lists of token ids), or "self": what the model itself makes up (LLM-QAT, Liu et al. 2023).
  std::string data;
  double weight = 1;          ///< its share of the sequences, over the sum of all weights
  std::string text_column{};  ///< of a .jsonl file; empty: CalibrationOptions::text_column

  bool operator==(const CalibrationDataset&) const = default;
};

struct CalibrationOptions {
  /// Of several each gives sequences in proportion to its weight.
  std::vector<CalibrationDataset> datasets;
  std::string text_column = "text";
  DocumentPolicy documents = DocumentPolicy::automatic;
  /// Take windows or documents in an order that `seed` determines, the same on any machine; else in that of
  /// the data.
  bool shuffle = false;
  int64_t seed = 42;  ///< of the shuffle, and of what "self" draws; not below 0
  /// Token ids, in place of data sets: each a sequence of its own of 1 to max_seq_length tokens, of any
  /// lengths mixed.
  std::vector<std::vector<int32_t>> sequences;
  /// Empty, or for each token of `sequences` whether it counts: where 0 stands the token takes part in the
  /// forward pass, but not in the statistics (prompts, say, of which only the answers matter).
  std::vector<std::vector<uint8_t>> masks;
  int64_t num_samples = 128;  ///< sequences to use at most
  int64_t max_seq_length = 512;
  std::optional<Propagation> propagation{};  ///< absent: what OneshotOptions::effort says
  CalibrationPrecision precision = CalibrationPrecision::automatic;
  ExpertCalibration experts = ExpertCalibration::all;
  /// With ExpertCalibration::routed: an expert that sees fewer takes the statistics of all tokens.
  int64_t min_tokens_per_expert = 128;
};

/// One mapping of one layer after its search.
struct MappingReport {
  std::string mapping;      ///< "input_layernorm -> q_proj, k_proj, v_proj"
  double loss_before = 0;   ///< mean squared output error with the identity
  double loss_after = 0;    ///< with the chosen scales
  double ratio = 0;         ///< the chosen exponent r
  bool duo = false;         ///< whether the chosen formula divides by mean|w|^(1-r)
  bool left_alone = false;  ///< the identity was best, or the search failed
  std::string failure;      ///< why the search failed; empty when it did not
  /// Least, 5th, 25th, 50th, 75th, 95th percentile and largest of the chosen scales.
  std::array<double, 7> scale_quantiles{1, 1, 1, 1, 1, 1, 1};
};

/// An input channel of a linear.
struct ChannelReport {
  int64_t channel = 0;
  double mean_absolute = 0;  ///< of its activations
  double times_median = 0;   ///< that mean over the median of all channels'
};

/// One linear after its rounding. Losses are mean squared errors of its outputs over the calibration tokens;
/// with Rounding::matched those of the corrected weight, but for loss_nearest.
struct LinearReport {
  std::string name;  ///< "model.layers.0.self_attn.q_proj"
  QuantizationScheme scheme;
  double signal = 0;          ///< mean squared output of the original weight
  double loss_nearest = 0;    ///< the original weight rounded to nearest, neither scaled nor clipped
  double loss_scaled = 0;     ///< with the chosen scales, rounded to nearest
  double loss_clipped = 0;    ///< with the chosen clips as well
  double loss = 0;            ///< as it is written
  int64_t dead_channels = 0;  ///< input channels that no calibration token activated
  /// Those whose activations are largest in the mean, at most five, the largest first.
  std::vector<ChannelReport> largest_channels;
};

/// Where the seconds of a layer went.
struct LayerSeconds {
  double forward = 0;     ///< the calibration tokens through the layer, once or twice
  double statistics = 0;  ///< Gram matrices of what its linears see
  double scales = 0;      ///< search for smoothing scales
  double clips = 0;
  double rounding = 0;
  double checks = 0;  ///< that smoothing left the layer's function as it was; losses for the report
  double total = 0;   ///< with reading the layer
};

struct LayerReport {
  int64_t layer = 0;
  std::vector<MappingReport> mappings;
  std::vector<LinearReport> linears;  ///< without data none
  double clip_loss_before = 0;        ///< summed over the clipped linears
  double clip_loss_after = 0;
  /// Relative change of the layer's function by the smoothing, before rounding.
  double equivalence_error = 0;
  /// Experts to which too few tokens were routed, so that they took the statistics of all tokens.
  std::vector<int64_t> pooled_experts;
  LayerSeconds seconds;
};

/// Told after each finished layer.
struct Progress {
  const LayerReport& layer;
  int64_t layers_done = 0;
  int64_t layers = 0;
  double elapsed_seconds = 0;
  /// Judged by the layers that this run has worked on; not a number before the first of them.
  double remaining_seconds = 0;
  bool resumed = false;  ///< the layer was finished by an earlier run and read from OneshotOptions::work
};

/// Told while the data set "self" is drawn, which comes before the first layer.
struct SamplingProgress {
  int64_t tokens_done = 0;
  int64_t tokens = 0;
  double elapsed_seconds = 0;
};

/// Linears that share a number of bits, as loaders run them as one matrix, and what each number would cost.
struct MeasuredWidths {
  std::vector<std::string> linears;
  int64_t elements = 0;
  int num_bits = 0;  ///< as chosen
  /// With 2 to 8 bits: how much rounding them to nearest changes what the layer passes on, relative to that;
  /// docs/quantization.md says how it is measured.
  std::array<double, 7> errors{};
};

/// The numbers of bits that were chosen for OneshotOptions::target_bits.
struct ChosenBits {
  double target_bits = 0;
  double mean_bits = 0;  ///< per quantized weight, scales and zeros counted; the head does not count
  std::vector<MeasuredWidths> units;
};

/// What a run writes.
enum class OneshotResult {
  quantized,  ///< integers, as the recipe says
  scaled,     ///< every weight dense and in its own type, smoothed and clipped for another program to round
              ///< (AutoAWQ's export_compatible); needs AWQ
};

struct OneshotOptions {
  std::string model;
  Recipe recipe;
  /// Where the recipe was read, to stand in front of what is wrong with it; may be empty.
  std::string recipe_source;
  /// Mappings for architectures ("LlamaForCausalLM") whose recipe names none, instead of those that the data
  /// flow allows.
  std::map<std::string, std::vector<AwqMapping>> mapping_registry;
  CalibrationOptions calibration;
  Effort effort = Effort::standard;
  std::string output;
  OneshotResult result = OneshotResult::quantized;
  /// Of integers; absent: recipe_format. Not for OneshotResult::scaled.
  std::optional<Format> format{};
  /// What the kind of recipe stands for: AutoAWQ's quant_config for Format::autoawq_gemm.
  Format recipe_format = Format::pack_quantized;
  Format integer_format() const { return format.value_or(recipe_format); }
  /// Bits per quantized weight in the mean, scales and zeros counted, at most: each linear gets the number of
  /// bits, 2 to 8, with which errors measured on the calibration tokens are least. Its recipe then says the
  /// rest: symmetry, groups, and with which number of bits the head is stored. Needs AWQ and pack_quantized.
  std::optional<double> target_bits{};

  /// What runs the model, searches and rounds: "cpu", "cuda" (the first GPU), "cuda:N", or "auto": the first
  /// GPU that works, else the CPU. What lies in between layers, and the checks of a layer, are the CPU's.
  std::string device = "cpu";
  uint64_t shard_size = 5'000'000'000;
  bool overwrite = false;

  /// Most bytes that the process may have resident; 0: no cap. See MemoryPlan.
  uint64_t max_memory = 0;
  /// A directory where every finished layer is kept until the output stands, so that another run can go on
  /// behind it; empty: none. It must be empty or absent unless `resume` is set.
  std::string work;
  /// Goes on with the job that a run with the same options left in `work`; without one there it starts.
  bool resume = false;

  /// Told in a line which GPU computes, or why none does though there is one.
  std::function<void(const std::string&)> on_note{};
  std::function<void(const Progress&)> on_progress;
  std::function<void(const SamplingProgress&)> on_sampling;
  /// With target_bits: told after each layer whose errors have been measured, before the first is quantized.
  std::function<void(int64_t layers_done, int64_t layers)> on_measured;
  /// Raised from outside (a signal handler, another thread) to stop; the output then does not exist.
  const std::atomic<bool>* cancelled = nullptr;
};

/// A linear that stays dense, and why.
struct DenseModule {
  std::string name;
  std::string reason;
};

/// A linear that becomes integers (of OneshotResult::scaled: whose scales and clips are searched for that),
/// and why so.
struct PlannedLinear {
  std::string name;
  int64_t out_features = 0;
  int64_t in_features = 0;
  QuantizationScheme scheme;
  Observer observer = Observer::automatic;
  ActivationOrder order = ActivationOrder::none;  ///< never automatic
  std::string group;                              ///< "group_0"
  std::string target;                             ///< of the group, that chose this linear: "Linear"
};

struct PlannedMapping {
  std::string smooth_layer;
  std::vector<std::string> balance_layers;
  std::string summary;  ///< "input_layernorm -> q_proj, k_proj, v_proj"
};

struct PlannedLayer {
  int64_t layer = 0;
  std::vector<PlannedMapping> mappings;
  std::vector<PlannedLinear> linears;
};

/// How the hidden states of the calibration tokens wait between two layers.
enum class HiddenStates {
  f32,      ///< in memory
  bf16,     ///< in memory, rounded to bfloat16
  spilled,  ///< rounded to bfloat16, in a file without a name on the disk of OneshotOptions::work or the
            ///< output
};

/// What is resident at the worst moment, in bytes, and what was done to make it fit under a cap: smaller
/// batches first, then hidden states in bf16, then on disk, then Gram matrices in blocks.
struct MemoryPlan {
  uint64_t program = 0;        ///< what is resident before the work, and what libraries and threads take
  uint64_t hidden_states = 0;  ///< of all calibration tokens, with the angles of their positions
  uint64_t layer = 0;          ///< one layer as it is stored and as it is written
  uint64_t statistics = 0;     ///< Gram matrices of one layer
  uint64_t workspace = 0;  ///< the largest of a batch's activations, a search and the rounding of a linear
  uint64_t sampling = 0;   ///< of the data set "self", before all else: the whole model and its caches
  uint64_t peak = 0;       ///< all of these, or what the embedding or the output head takes if that is more
  /// The least max_memory, in whole MiB, under which the same is chosen: a cap counts the program in whole
  /// steps of 128 MiB, and has room for at least four threads.
  uint64_t sufficient_cap = 0;
  uint64_t cap = 0;      ///< 0: none
  uint64_t spilled = 0;  ///< of hidden states on disk
  HiddenStates storage = HiddenStates::f32;
  int64_t rows_per_batch = 0;  ///< tokens that run through a layer together
  /// Of the Gram matrix of a wider input only the square blocks of so many columns on its diagonal are kept,
  /// and errors are compensated within a block; 0: all are whole.
  int64_t gram_block = 0;
  size_t threads = 0;  ///< that work; under a cap no more than it holds the scratch memory of
};

/// What `oneshot` would do: found out without touching weights beyond their headers, but with target_bits,
/// for which all of them are measured.
struct OneshotPlan {
  OneshotResult result = OneshotResult::quantized;
  std::string architecture;
  std::string device;
  std::vector<PlannedLayer> layers;
  /// The output head, where the recipe does not ignore it; rounded without AWQ, as no norm before it is
  /// smoothed.
  std::optional<PlannedLinear> head;
  std::vector<SchemeGroup> groups;
  std::optional<ChosenBits> bits;  ///< with target_bits
  std::vector<DenseModule> dense;
  std::vector<std::string> warnings;  ///< what other programs may not load
  int64_t quantized_linears = 0;      ///< none of OneshotResult::scaled
  int64_t calibration_tokens = 0;
  int64_t masked_tokens = 0;  ///< those of them that the statistics leave out
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
  MemoryPlan memory;
};

struct OneshotReport {
  OneshotResult result = OneshotResult::quantized;
  std::string model;   ///< the directory that was read
  std::string method;  ///< "AWQ: duo_scaling on, 20 candidates, clip search, ..." or "round to nearest"
  std::vector<LayerReport> layers;
  std::optional<ChosenBits> bits;     ///< that of the plan
  std::vector<std::string> warnings;  ///< those of the plan
  int64_t resumed_layers = 0;         ///< read from OneshotOptions::work
  int64_t quantized_linears = 0;
  int64_t calibration_tokens = 0;
  int64_t masked_tokens = 0;
  int64_t gram_block = 0;  ///< that of the plan, see MemoryPlan
  uint64_t bytes_before = 0;
  uint64_t bytes_after = 0;
  double seconds = 0;
  uint64_t peak_memory = 0;  ///< of the process, as the kernel counts resident pages
};

/// Reads a recipe into `options`: what to do (`recipe`), and where the file says so format and calibration
/// settings. Known are llm-compressor's recipes in YAML or JSON (stages of AWQModifier and
/// QuantizationModifier, or a list of such), AutoAWQ's quant_config, and the recipe.yaml that `oneshot`
/// writes. `source` names the text in messages; where it ends in .json the text is JSON, else YAML. Errors:
/// bad_format; invalid_argument for unknown or contradictory keys and values, unsupported for known ones that
/// Salient cannot do: each with the path and the value.
void parse_recipe(std::string_view text, std::string_view source, OneshotOptions& options);
/// Errors: also not_found, io.
void read_recipe_file(const std::string& path, OneshotOptions& options);

/// Errors: those of opening the model and the data set; invalid_argument for a recipe that does not fit it
/// (group sizes that do not divide the columns, with the layers and the sizes that would fit; an ignore entry
/// that matches nothing), for options that contradict each other and numbers out of range; out_of_memory for
/// a cap that no plan keeps, with the smallest one that would do; cancelled.
OneshotPlan plan_oneshot(const OneshotOptions& options);

/// Throws what `oneshot` throws for an output that may not be replaced, and for a work directory that may not
/// be taken. Plans do not ask: they write nothing.
void check_output(const OneshotOptions& options);

/// Throws what `plan_oneshot` throws before it measures: no weights are read for target_bits either.
void check_oneshot(const OneshotOptions& options);

/// Quantizes a checkpoint directory into another. Errors: those of `plan_oneshot`, before any work;
/// invalid_argument for an output or a work directory that another process uses, and for a work directory
/// that holds another job, saying what of it changed; cancelled; io; internal when smoothing changes what a
/// layer computes by more than 1e-3.
OneshotReport oneshot(const OneshotOptions& options);

}  // namespace salient
