#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backend/kv_pages.h"
#include "quant/group_quantize.h"
#include "quant/quantized_weight.h"
#include "tensor/activation.h"
#include "tensor/rope_pairs.h"
#include "tensor/tensor.h"
#include "tensor/tensor_pool.h"

namespace salient {

/// A linear in the layout that a back end computes with. Made once, by Backend::prepare.
class PreparedLinear {
 public:
  virtual ~PreparedLinear() = default;
  virtual int64_t out_features() const = 0;
  virtual int64_t in_features() const = 0;
  /// Bytes that one pass over the weight reads.
  virtual size_t byte_size() const = 0;
};

/// A weight as a back end has packed it: bytes that may be kept in a file and used where they lie.
struct PackedWeight {
  Tensor layout;  ///< i64 [8], known to the back end alone
  Tensor bytes;   ///< u8, on a cache line
};

/// One of several linears that share an input, and where its product goes.
struct LinearOutput {
  const PreparedLinear& weight;
  Tensor& y;  ///< f32 [rows, out]
};

/// Arithmetic of dense products with many rows. f32 is exact to rounding; bf16 rounds both operands to
/// bfloat16 and accumulates in f32, several times faster where the CPU multiplies bf16 (AMX, AVX512-BF16).
enum class MatmulPrecision { f32, bf16 };

/// Causal attention of one sequence: query row i stands at position `first_position + i` and sees the cached
/// positions (p - window, p], all of [0, p] when window is 0.
struct AttentionProblem {
  const Tensor& query;  ///< f32 [count, heads * head_dim]
  /// Where keys and values of the positions [0, first_position + count) stand: in a cache, or, with null, in
  /// `keys` and `values`.
  const KvView* cache = nullptr;
  const Tensor& keys;    ///< f32 [capacity, kv_heads * head_dim]
  const Tensor& values;  ///< f32 [capacity, kv_heads * value_dim]
  Tensor& output;        ///< f32 [count, heads * value_dim]
  int64_t heads;
  int64_t kv_heads;
  int64_t head_dim;
  int64_t value_dim;
  int64_t first_position;
  int64_t window;
  float scale;        ///< of q.k before the softmax
  float softcap = 0;  ///< c > 0: scores become c tanh(score / c) (Gemma 2)
  std::span<const float> slopes =
      {};  ///< [heads]: score += slope * key position (Press et al. 2022), or none
};

/// Rotates features [first, first + 2 * pairs) of every head of x by row r of cosine and sine (Su et al.
/// 2021).
struct RopeProblem {
  const Tensor& cosine;  ///< f32 [rows, pairs]
  const Tensor& sine;    ///< f32 like cosine
  int64_t head_dim;
  RopePairs pairs = RopePairs::halves;
  int64_t first = 0;
  Tensor& x;  ///< f32 [rows, heads * head_dim], in place
};

/// Rows [begin, begin + count) of a batch, kept as positions [first, first + count) of a sequence.
struct RowsForCache {
  int64_t begin = 0;
  int64_t count;
  int64_t first;
  KvView pages;
};

/// The new rows of a batch on their way to attention, see Backend::rope_and_store.
struct RopeStoreProblem {
  Tensor query = {};   ///< f32 [rows, heads * head_dim], in place; undefined: only without a rotation
  Tensor keys;         ///< f32 [rows, kv_heads * head_dim], in place
  Tensor values;       ///< f32 [rows, kv_heads * value_dim]
  Tensor cosine = {};  ///< f32 [rows, pairs]; undefined: nothing is rotated
  Tensor sine = {};    ///< f32 like cosine
  int64_t head_dim = 0;
  RopePairs pairs = RopePairs::halves;
  std::span<const RowsForCache> caches;  ///< none for rows of a sequence without a cache
};

struct NormWeights {
  const Tensor& weight;  ///< f32 [features] or [heads, features]
  const Tensor& bias;    ///< f32 like weight, or undefined
};

/// sum += x; y = RMSNorm(sum): a block's output joins the residual stream, which the next block reads.
struct AddNormProblem {
  const Tensor& x;       ///< f32 [rows, features]
  const Tensor& weight;  ///< f32 [features]
  double epsilon;
  Tensor& sum;  ///< f32 like x
  Tensor& y;    ///< f32 like x
};

/// See Backend::rounding_loss.
struct RoundingLossProblem {
  const RoundingRule& rule;                ///< for kWholeMatrix with its grid
  const Tensor& weight;                    ///< f32 [out, in]
  std::span<const float> column_scales{};  ///< s [in], or empty for ones
  Tensor clip;         ///< f32 [out, groups], the largest |w s| of each group, or undefined
  const Tensor& gram;  ///< G f32 [in, in]
  MatmulPrecision precision = MatmulPrecision::f32;
  int64_t row_step = 1;  ///< only rows 0, row_step, 2 row_step, ... count
};

/// Rows of a RoundingLossProblem that count.
inline int64_t rows_that_count(const RoundingLossProblem& problem) {
  return (problem.weight.dim(0) + problem.row_step - 1) / problem.row_step;
}

/// See Backend::round_compensated.
struct CompensationProblem {
  const Tensor& weight;            ///< f32 [out, in]
  const Tensor& upper;             ///< U f32 [in, in], a unit upper triangle, its columns in `order`
  std::span<const int64_t> order;  ///< [in], of the columns of `weight`
};

/// See Backend::sweep_codes.
struct CodeSweepProblem {
  const Tensor& weight;          ///< W f32 [out, in]
  const Tensor& gram;            ///< f32 [in, in]
  std::span<const float> ridge;  ///< [in]
  int64_t sweeps;
};

/// Values of a row that Backend::largest gives at most.
inline constexpr int64_t kMostLargest = 64;

/// See Backend::largest.
struct LargestProblem {
  const Tensor& x;                  ///< f32 [rows, columns]
  int64_t wanted;                   ///< of each row, 1 to kMostLargest
  std::span<const float> scales{};  ///< [rows], or empty where `sums` and `reaching` are not asked for
};
struct LargestValues {
  int64_t wanted;
  /// [rows, wanted] in descending order, ties by the lower index, NaN below anything.
  std::vector<float> values;
  std::vector<int32_t> indices;  ///< [rows, wanted]; -1 where a row has fewer columns
  /// [rows], the sum over a row of exp((x - the largest) scale), off by at most kSumError of itself; NaN
  /// where the row holds one, or the largest is infinite.
  std::vector<float> sums;
  std::vector<int32_t> reaching;  ///< [rows], how many values of a row are at least the last one that came
};
inline constexpr double kSumError = 1e-4;

/// What quantized linears make of their inputs (weights in groups of a multiple of 8 columns or whole rows;
/// others are not touched by it). A block is at most 128 columns and never reaches into another group.
enum class ActivationMode {
  fp32,   ///< exact products, the reference
  int16,  ///< 16-bit integers with one scale per block: off by at most 1/65278 of its largest value
  int8,   ///< 8-bit integers: by at most 1/254
  fp16,   ///< rounded to binary16: what tensor cores multiply, on GPUs alone
  bf16,   ///< rounded to bfloat16, the same
};

/// "fp32", "int16", "int8", "fp16", "bf16".
std::string_view to_string(ActivationMode mode);
/// Errors: invalid_argument.
ActivationMode activation_mode_by_name(std::string_view name);

/// Products of up to so many rows give each row the bytes that it would get alone, in every activation mode;
/// those of quantized weights with activations as integers for any number of rows.
inline constexpr int64_t kRowsAsAlone = 8;
inline constexpr int64_t kAnyRows = INT64_MAX;

/// How a machine computes. Coarse operations on f32 activations [rows, features]; weights are prepared once.
/// Shapes are validated here (internal error on mismatch), kernels validate nothing.
class Backend {
 public:
  virtual ~Backend() = default;
  /// "cpu: avx512 (vnni, amx), 2 threads".
  virtual std::string description() const = 0;
  /// Rows of a product up to which each gets the bytes that it would get alone: kRowsAsAlone, or kAnyRows
  /// where activations are integers and weights take them.
  virtual int64_t rows_as_alone() const = 0;
  /// Whether many rows cost so little more than one that texts had better share a pass beyond rows_as_alone,
  /// though the last bits of each then depend on how many there are.
  virtual bool favors_many_rows() const = 0;
  /// Bytes a second that it reads from its memory, measured now, in about a second.
  virtual double measure_bandwidth() = 0;
  /// Bytes that are free for it in a memory of its own, to which tensors have to come; nothing where that is
  /// the host's.
  virtual std::optional<uint64_t> free_device_bytes() { return std::nullopt; }
  /// What its results depend on: "cpu: avx512 (vnni, amx), bf16". The number of threads is no part of it.
  virtual std::string arithmetic() const = 0;
  virtual ActivationMode activations() const = 0;

  virtual std::unique_ptr<PreparedLinear> prepare(const LinearWeight& weight) = 0;
  /// The same linear in the layout that products with many rows bring it into, in memory of `pool` or,
  /// without one, new: for products that repeat, and for calls from inside parallel work, which would each do
  /// so alone. Null where there is no such layout. Linears give the same bytes either way.
  virtual std::shared_ptr<const PreparedLinear> pack(const PreparedLinear& linear, TensorPool* pool) = 0;
  /// Whether what `prepare` makes may be kept in a file.
  virtual bool keeps_packed_weights() const = 0;
  /// What a prepared linear holds beside its bias, sharing memory; nothing where it holds the weight as it
  /// was given.
  virtual std::optional<PackedWeight> packed_weight(const PreparedLinear& linear) = 0;
  /// A linear of such parts, whose memory it shares. Errors: bad_format for parts that it has not made.
  virtual std::unique_ptr<PreparedLinear> prepare(const PackedWeight& weight, const Tensor& bias) = 0;
  /// y [rows, out] = x [rows, in] W^T + bias.
  virtual void linear(const PreparedLinear& weight, const Tensor& x, Tensor& y) = 0;
  /// The same for several linears that read one x: where their formats allow it one product with their
  /// outputs side by side, for which x is brought into the form that it is multiplied in once. The bytes are
  /// those of one linear after the other.
  virtual void linears(std::span<const LinearOutput> outputs, const Tensor& x) = 0;
  /// y[r] = table[tokens[r]]; the table is f32, f16 or bf16 [vocab, features].
  virtual void embed(const Tensor& table, std::span<const int32_t> tokens, Tensor& y) = 0;
  /// y = x / sqrt(mean(x^2) + epsilon) * weight over the last `weight.dim(0)` features: a row may hold
  /// several heads, each normalised on its own. x and y may be the same tensor. Zhang & Sennrich 2019.
  virtual void rms_norm(const Tensor& x, const Tensor& weight, double epsilon, Tensor& y) = 0;
  /// add and rms_norm row by row, each row while it is in a cache: the bytes of the two after one another.
  virtual void add_rms_norm(const AddNormProblem& problem) = 0;
  /// y = (x - mean) / sqrt(variance + epsilon) * weight + bias (Ba et al. 2016). A weight [features] serves
  /// every run of that many features; one [heads, features] has a row for each head. The bias may be
  /// undefined.
  virtual void layer_norm(const Tensor& x, const NormWeights& weights, double epsilon, Tensor& y) = 0;
  /// y += x.
  virtual void add(const Tensor& x, Tensor& y) = 0;
  /// x *= factor.
  virtual void scale(float factor, Tensor& x) = 0;
  /// x = cap tanh(x / cap).
  virtual void softcap(float cap, Tensor& x) = 0;
  virtual void rope(const RopeProblem& problem) = 0;
  /// Queries and keys are rotated, the first 2 * pairs features of every head, as by `rope`; then keys and
  /// values are kept in their sequences' pages.
  virtual void rope_and_store(const RopeStoreProblem& problem) = 0;
  /// Of sequences side by side, whose outputs are apart. Those of up to kRowsAsAlone queries in all get the
  /// bytes that each would get alone.
  virtual void attention(std::span<const AttentionProblem> problems) = 0;
  void attention(const AttentionProblem& problem) { attention({&problem, 1}); }
  /// x = activation(x).
  virtual void activation(Activation activation, Tensor& x) = 0;
  /// y = activation(gate) * up; y may be gate.
  virtual void gated_activation(Activation activation, const Tensor& gate, const Tensor& up, Tensor& y) = 0;
  /// y[i] = x[rows[i]].
  virtual void gather_rows(const Tensor& x, std::span<const int32_t> rows, Tensor& y) = 0;
  /// y[rows[i]] += factors[i] * x[i]; no row twice.
  virtual void scatter_add(const Tensor& x, std::span<const int32_t> rows, std::span<const float> factors,
                           Tensor& y) = 0;
  /// The largest values of each row, on the host: few bytes of what may be many.
  virtual LargestValues largest(const LargestProblem& problem) = 0;
  /// Whether no value of x is infinite or NaN.
  virtual bool all_finite(const Tensor& x) = 0;
  /// gram [k, k] += x^T x for x [rows, k], f32; the whole matrix is filled. `precision` as for products.
  virtual void accumulate_gram(const Tensor& x, MatmulPrecision precision, Tensor& gram) = 0;
  /// result[r] = x_r S x_r^T for every row of x [rows, k] and a symmetric S [k, k]. x S is computed in f32,
  /// its products with x are summed in f64.
  virtual void quadratic_form(const Tensor& x, const Tensor& symmetric, std::span<double> result) = 0;
  /// result[r] = D_r G D_r^T with D = Q(W s) / s - W, Q being rounding to nearest: the squared output error
  /// of each row that counts (Lin et al. 2023, eq. 4), its products in the precision asked for, sums over
  /// columns in f64. [rows that count]
  virtual void rounding_loss(const RoundingLossProblem& problem, std::span<double> result) = 0;
  /// The same with nothing of G but the square block of each group: result [rows that count, groups].
  virtual void rounding_loss_by_group(const RoundingLossProblem& problem, std::span<double> result) = 0;
  /// Both for several problems that differ in scales, clips and grids alone, each problem's results behind
  /// those of the one before: what each gives alone, with one wait for a device instead of many.
  virtual void rounding_losses(std::span<const RoundingLossProblem> problems, std::span<double> result);
  virtual void rounding_losses_by_group(std::span<const RoundingLossProblem> problems,
                                        std::span<double> result);
  /// Replaces a symmetric S [k, k], f32, by the unit upper triangle U of S = U D U^T with a diagonal D; what
  /// was below the diagonal is left undefined. False, and S undefined, when S is not positive definite in
  /// f32.
  virtual bool factorize(Tensor& symmetric) = 0;
  /// rows [n, k] := rows S^-1 for a symmetric S [k, k], f32, whose memory is used up. False, and both
  /// undefined, when S is not positive definite in f32.
  virtual bool solve(Tensor& symmetric, Tensor& rows) = 0;
  /// result [a's columns, b's columns] += a^T b for a and b of as many rows, f32. `precision` as for
  /// products.
  virtual void accumulate_product(const Tensor& a, const Tensor& b, MatmulPrecision precision,
                                  Tensor& result) = 0;
  /// Replaces the codes of `result` [out, in], whose scales and zeros stay. One column after the
  /// other, order[0] first, each code becomes the nearest to w_k + sum over the columns before it of (w - q)
  /// U[., i], k = order[i], q being what their codes stand for.
  virtual void round_compensated(const CompensationProblem& problem, QuantizedWeight& result) = 0;
  /// Lowers the loss (W - Q) H (W - Q)^T of each row Q of `result` [out, in], H being `gram` with `ridge`
  /// added to its diagonal: so many times each scale, group after group, and then each code, column after
  /// column, goes to where the loss is least with all others as they are. Scales stay within a factor of 3
  /// and representable in their type, those of kWholeMatrix and all zeros as they are; a row whose loss did
  /// not fall, too.
  virtual void sweep_codes(const CodeSweepProblem& problem, QuantizedWeight& result) = 0;
};

struct CpuBackendOptions {
  /// For dense products of at least a few rows; single rows are always exact.
  MatmulPrecision precision = MatmulPrecision::f32;
  /// The integer modes hold for any number of rows, and a row's result does not depend on their number.
  ActivationMode activations = ActivationMode::fp32;
  /// Whether quantized weights are copied into the layout that runs them fastest. For weights that are
  /// used once or twice it is not worth the time and the memory: then their codes are shared.
  bool repack = true;
  /// Whether linears that share an input are one product. It changes speed alone.
  bool fuse_layers = true;
};

std::unique_ptr<Backend> make_cpu_backend(const CpuBackendOptions& options = {});

/// What computes a model that runs.
struct BackendChoice {
  /// "cpu", "cuda", "cuda:N", or "auto": the first GPU that works, else the CPU.
  std::string device = "auto";
  /// The name of an ActivationMode. Those of the CPU are fp16 on a GPU.
  std::string activations = "fp32";
  bool fuse_layers = true;  ///< see CpuBackendOptions
  /// Kernels of quantized weights on a GPU, see cuda/kernel_choice.h.
  std::string kernel = "auto";
  /// Whether plans of a GPU's products may follow measurements; else they follow sizes alone.
  bool measure = true;
  /// Told which kernels run and why, and why no GPU does where one is there.
  std::function<void(const std::string&)> on_note{};
};

/// Errors: invalid_argument for a name that is not known; for a GPU that is asked for by name unsupported
/// with what is in its way, internal where it computes something else than the CPU.
std::unique_ptr<Backend> make_backend(const BackendChoice& choice);
/// The GPU that a choice stands for; null where it stands for the CPU: as "cpu", or as "auto" when no GPU
/// works. Errors: as make_backend.
std::unique_ptr<Backend> make_gpu_backend(const BackendChoice& choice);
/// Errors: invalid_argument for a name of a device that is not known, whether it is there or not.
void check_device_name(std::string_view name);

}  // namespace salient
