#pragma once

#include <span>

#include "model/weights.h"

namespace salient {

/// A floating tensor in the type in which it is written; the same memory when that is its own. Errors:
/// unsupported when a finite value leaves that type's range.
Tensor store_as(const std::string& name, const Tensor& tensor, DType dtype);

/// Changes wanted `scales` [channels] into those that a norm carries exactly when its weight is stored as
/// `stored`: s becomes w / round(w / s). A gain that is zero, or would leave the range of its type, gets 1.
void make_representable(const NormWeight& norm, DType stored, std::span<float> scales);

/// The same for a linear that stays dense: the nearest powers of two, the only factors that its stored type
/// takes without rounding. One that is rounded to integers anyway carries any scale.
void make_powers_of_two(std::span<float> scales);

/// Bounds |w| in each group. weight: f32 [out, in]; clip: f32 [out, groups].
void clamp_groups(Tensor& weight, const Tensor& clip);

}  // namespace salient
