#include "calibrate/hidden_store.h"

#include <cstring>

#include "base/error.h"

namespace salient {

HiddenStore::HiddenStore(const HiddenPlace& place, int64_t rows, int64_t features)
    : storage_(place.storage), rows_(rows), features_(features) {
  if (storage_ == HiddenStates::spilled) {
    file_ = std::make_unique<ScratchFile>(place.directories, offset(rows));
  } else {
    memory_ = Tensor::empty(storage_ == HiddenStates::f32 ? DType::f32 : DType::bf16, {rows, features});
  }
}

/// In the file, which holds bf16.
uint64_t HiddenStore::offset(int64_t row) const {
  return static_cast<uint64_t>(row) * static_cast<uint64_t>(features_) * byte_size(DType::bf16);
}

Tensor HiddenStore::read(int64_t begin, int64_t end) const {
  if (!file_) return memory_.slice(begin, end).to(DType::f32);
  Tensor rounded = Tensor::empty(DType::bf16, {end - begin, features_});
  file_->read(offset(begin), {rounded.mutable_bytes(), rounded.byte_size()});
  return rounded.to(DType::f32);
}

Tensor HiddenStore::borrow(int64_t begin, int64_t end) {
  return storage_ == HiddenStates::f32 ? memory_.slice(begin, end) : read(begin, end);
}

void HiddenStore::write(int64_t begin, const Tensor& rows) {
  const int64_t end = begin + rows.dim(0);
  if (end > rows_) fail(ErrorKind::internal, "rows [{}, {}) of {} hidden states", begin, end, rows_);
  const Tensor stored = storage_ == HiddenStates::f32 ? rows : rows.to(DType::bf16);
  if (file_) return file_->write(offset(begin), {stored.bytes(), stored.byte_size()});
  Tensor target = memory_.slice(begin, end);
  if (!target.aliases(stored)) std::memcpy(target.mutable_bytes(), stored.bytes(), stored.byte_size());
}

Tensor HiddenStore::gather(std::span<const int32_t> chosen) const {
  Tensor result = Tensor::empty(DType::f32, {static_cast<int64_t>(chosen.size()), features_});
  for (size_t begin = 0; begin < chosen.size();) {
    size_t end = begin + 1;
    while (end < chosen.size() && chosen[end] == chosen[end - 1] + 1) ++end;
    const Tensor run = read(chosen[begin], chosen[end - 1] + 1);
    copy_rows(run, result, static_cast<int64_t>(begin));
    begin = end;
  }
  return result;
}

}  // namespace salient
