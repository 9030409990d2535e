#include "calibrate/hidden_store.h"

#include <algorithm>

#include "base/error.h"

namespace salient {

namespace {

std::vector<int64_t> equal_chunks(int64_t rows) {
  std::vector<int64_t> ends;
  for (int64_t end = 0; end < rows;) ends.push_back(end = std::min(rows, end + HiddenStore::kRowsOfChunk));
  return ends;
}

}  // namespace

HiddenStore::HiddenStore(const HiddenPlace& place, int64_t rows, int64_t features)
    : HiddenStore(place, equal_chunks(rows), features) {}

HiddenStore::HiddenStore(const HiddenPlace& place, std::vector<int64_t> ends, int64_t features)
    : storage_(place.storage),
      rows_(ends.empty() ? 0 : ends.back()),
      features_(features),
      ends_(std::move(ends)) {
  if (storage_ == HiddenStates::spilled) {
    file_ = std::make_unique<ScratchFile>(place.directories, offset(rows_));
    return;
  }
  const DType dtype = storage_ == HiddenStates::f32 ? DType::f32 : DType::bf16;
  for (size_t chunk = 0; chunk < ends_.size(); ++chunk)
    chunks_.push_back(Tensor::empty(dtype, {ends_[chunk] - first_row(chunk), features}));
}

std::vector<HiddenStore::Piece> HiddenStore::pieces(int64_t begin, int64_t end) const {
  if (begin < 0 || end > rows_) fail(ErrorKind::internal, "hidden states [{}, {}) of {}", begin, end, rows_);
  std::vector<Piece> found;
  auto chunk = static_cast<size_t>(std::ranges::upper_bound(ends_, begin) - ends_.begin());
  for (; begin < end && chunk < ends_.size(); ++chunk) {
    found.push_back({.chunk = chunk, .begin = begin, .end = std::min(end, ends_[chunk])});
    begin = found.back().end;
  }
  return found;
}

Tensor HiddenStore::rows_of(const Piece& piece) const {
  const int64_t first = first_row(piece.chunk);
  return chunks_[piece.chunk].slice(piece.begin - first, piece.end - first);
}

/// In the file, which holds bf16.
uint64_t HiddenStore::offset(int64_t row) const {
  return static_cast<uint64_t>(row) * static_cast<uint64_t>(features_) * byte_size(DType::bf16);
}

Tensor HiddenStore::read(int64_t begin, int64_t end) const {
  if (file_) {
    Tensor rounded = Tensor::empty(DType::bf16, {end - begin, features_});
    file_->read(offset(begin), {rounded.mutable_bytes(), rounded.byte_size()});
    return rounded.to(DType::f32);
  }
  const std::vector<Piece> found = pieces(begin, end);
  if (found.size() == 1) return rows_of(found.front()).to(DType::f32);
  Tensor result = Tensor::empty(DType::f32, {end - begin, features_});
  for (const Piece& piece : found) {
    const Tensor rows = rows_of(piece);
    copy_rows(storage_ == HiddenStates::f32 ? rows : rows.to(DType::f32), result, piece.begin - begin);
  }
  return result;
}

Tensor HiddenStore::borrow(int64_t begin, int64_t end) {
  if (storage_ == HiddenStates::f32) {
    const std::vector<Piece> found = pieces(begin, end);
    if (found.size() == 1) return rows_of(found.front());
  }
  return read(begin, end);
}

void HiddenStore::write(int64_t begin, const Tensor& rows) {
  const int64_t end = begin + rows.dim(0);
  if (end > rows_) fail(ErrorKind::internal, "rows [{}, {}) of {} hidden states", begin, end, rows_);
  const Tensor stored = storage_ == HiddenStates::f32 ? rows : rows.to(DType::bf16);
  if (file_) return file_->write(offset(begin), {stored.bytes(), stored.byte_size()});
  for (const Piece& piece : pieces(begin, end)) {
    const Tensor from = stored.slice(piece.begin - begin, piece.end - begin);
    const Tensor target = rows_of(piece);
    if (!target.aliases(from)) copy_rows(from, chunks_[piece.chunk], piece.begin - first_row(piece.chunk));
  }
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
