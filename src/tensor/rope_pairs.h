#pragma once

namespace salient {

/// Which features of a head a rotation turns together. Models name it, back ends do it.
enum class RopePairs {
  halves,      ///< i and i + n/2 (GPT-NeoX, Llama)
  neighbours,  ///< 2i and 2i + 1 (GPT-J, Cohere, DeepSeek)
};

}  // namespace salient
