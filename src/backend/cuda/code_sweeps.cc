#include "backend/cuda/code_sweeps.h"

#include <algorithm>

#include "backend/backend.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/products.h"
#include "backend/cuda/workspace_parts.h"
#include "quant/quantized_weight.h"

namespace salient::cuda {
namespace {

/// What lies in the workspace, one after the other.
struct Workspace {
  SweepLosses before;
  SweepLosses after;
  double* curvatures;  // [rows, groups]
  float* steps;        // [rows, columns]
  float* residuals;    // [rows, columns]
  float* errors;       // [rows, columns]: E, in between changes of it
  float* scales;       // [rows, groups]
  float* form;         // of form_workspace_bytes
  size_t bytes;        // of all
};

Workspace workspace_of(const QuantizationScheme& scheme, int64_t rows, int64_t columns, void* memory) {
  const int64_t groups = rows * group_count(scheme, columns);
  WorkspaceParts parts(memory);
  Workspace result{};
  result.before = {.form = parts.next<double>(rows), .ridge = parts.next<double>(rows)};
  result.after = {.form = parts.next<double>(rows), .ridge = parts.next<double>(rows)};
  result.curvatures = parts.next<double>(groups);
  result.steps = parts.next<float>(rows * columns);
  result.residuals = parts.next<float>(rows * columns);
  result.errors = parts.next<float>(rows * columns);
  result.scales = parts.next<float>(groups);
  const size_t form = form_workspace_bytes(rows, columns);
  result.form = parts.next<float>(static_cast<int64_t>(form / sizeof(float)));
  result.bytes = parts.used();
  return result;
}

/// Some rows on their way through all sweeps.
class RowSweep {
 public:
  RowSweep(Device& device, const CodeSweep& problem)
      : device_(device),
        problem_(problem),
        workspace_(workspace_of(problem.scheme, problem.rows, problem.columns, problem.workspace)),
        shape_{.rows = problem.rows,
               .columns = static_cast<int>(problem.columns),
               .group_width = static_cast<int>(group_width(problem.scheme, problem.columns)),
               .groups = static_cast<int>(group_count(problem.scheme, problem.columns))},
        stored_{.codes = reinterpret_cast<uint32_t*>(problem.codes),
                .words = static_cast<int>(
                    QuantizedWeight::row_bytes(problem.scheme.num_bits, problem.columns) / 4),
                .bits = QuantizedWeight::code_bits(problem.scheme.num_bits),
                .scales = problem.scales,
                .zeros = problem.zeros,
                .type = scale_type(problem.scale_dtype),
                .top = max_code(problem.scheme)} {}

  void run() {
    load();
    measure(workspace_.before, workspace_.residuals);
    add_products(0, problem_.columns);
    const bool fits_scales = problem_.scheme.group_size != QuantizationScheme::kWholeMatrix;
    for (int64_t sweep = 0; sweep < problem_.sweeps; ++sweep) {
      if (fits_scales) fit_scales();
      sweep_columns();
    }
    measure(workspace_.after, nullptr);
    store();
  }

 private:
  template <typename Arguments>
  void for_rows(const Kernel& kernel, const Arguments& arguments) {
    launch(device_, kernel, {.x = blocks_for(problem_.rows, kSweepThreads / 32)}, arguments);
  }

  void load() {
    const LoadStepsArguments arguments{
        .shape = shape_, .stored = stored_, .steps = workspace_.steps, .scales = workspace_.scales};
    launch(device_, kLoadSteps, {.x = blocks_for(problem_.rows * problem_.columns, kSweepThreads)},
           arguments);
  }

  /// Errors and losses of the rows as they are; residuals, if any, get the ridge's share.
  void measure(const SweepLosses& losses, float* residuals) {
    for_rows(kSweepErrors, SweepErrorArguments{.shape = shape_,
                                               .weight = problem_.weight,
                                               .steps = workspace_.steps,
                                               .scales = workspace_.scales,
                                               .ridge = problem_.ridge,
                                               .errors = workspace_.errors,
                                               .residuals = residuals,
                                               .ridge_losses = losses.ridge});
    forms(workspace_.errors, problem_.columns, losses.form);
  }

  void forms(const float* x, int64_t width, double* result) {
    quadratic_form(device_, {.x = x,
                             .symmetric = problem_.gram,
                             .rows = problem_.rows,
                             .columns = problem_.columns,
                             .group_width = width,
                             .precision = MatmulPrecision::f32,
                             .workspace = workspace_.form,
                             .result = result});
  }

  /// R += errors, or changes of them, of the columns [begin, end) times their rows of G.
  void add_products(int64_t begin, int64_t end) {
    multiply(device_, {.a = {workspace_.errors + begin, problem_.columns},
                       .b = {problem_.gram + begin * problem_.columns, problem_.columns},
                       .c = workspace_.residuals,
                       .c_stride = problem_.columns,
                       .m = problem_.rows,
                       .n = problem_.columns,
                       .k = end - begin,
                       .use = ProductUse::add});
  }

  void fit_scales() {
    forms(workspace_.steps, shape_.group_width, workspace_.curvatures);
    FitScalesArguments arguments{
        .shape = shape_,
        .rule = grid_rule({.scheme = problem_.scheme, .scale_dtype = problem_.scale_dtype}),
        .group = 0,
        .steps = workspace_.steps,
        .ridge = problem_.ridge,
        .curvatures = workspace_.curvatures,
        .scales = workspace_.scales,
        .residuals = workspace_.residuals,
        .changes = workspace_.errors};
    for (; arguments.group < shape_.groups; ++arguments.group) {
      for_rows(kFitScales, arguments);
      const int64_t begin = int64_t{arguments.group} * shape_.group_width;
      const int64_t end = std::min(problem_.columns, begin + shape_.group_width);
      add_products(begin, end);
    }
  }

  void sweep_columns() {
    for (int64_t begin = 0; begin < problem_.columns; begin += kSweepBlock) {
      const int64_t end = std::min(problem_.columns, begin + kSweepBlock);
      const SweepColumnsArguments arguments{.shape = shape_,
                                            .begin = static_cast<int>(begin),
                                            .end = static_cast<int>(end),
                                            .top = stored_.top,
                                            .gram = problem_.gram,
                                            .ridge = problem_.ridge,
                                            .scales = workspace_.scales,
                                            .zeros = problem_.zeros,
                                            .steps = workspace_.steps,
                                            .residuals = workspace_.residuals,
                                            .changes = workspace_.errors};
      launch(device_, kSweepColumns, {.x = blocks_for(problem_.rows, kRowsOfSweepBlock)}, arguments,
             kSweepSharedBytes);
      add_products(begin, end);
    }
  }

  void store() {
    const StoreSweepArguments arguments{.shape = shape_,
                                        .stored = stored_,
                                        .steps = workspace_.steps,
                                        .scales = workspace_.scales,
                                        .before = workspace_.before,
                                        .after = workspace_.after};
    launch(device_, kStoreSweep, {.x = blocks_for(problem_.rows * stored_.words, kSweepThreads)}, arguments);
  }

  Device& device_;
  const CodeSweep& problem_;
  Workspace workspace_;
  SweepShape shape_;
  StoredRows stored_;
};

}  // namespace

size_t code_sweep_bytes(const QuantizationScheme& scheme, int64_t rows, int64_t columns) {
  return workspace_of(scheme, rows, columns, nullptr).bytes;
}

void sweep_codes(Device& device, const CodeSweep& problem) {
  if (problem.rows == 0) return;
  RowSweep(device, problem).run();
}

}  // namespace salient::cuda
