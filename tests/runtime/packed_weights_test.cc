#include "runtime/packed_weights.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "base/error.h"
#include "base/file.h"
#include "checkpoint/shard_file.h"
#include "runtime/decoder.h"
#include "support/error_matcher.h"
#include "support/golden_model.h"
#include "support/temporary_directory.h"

namespace salient {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class PackedWeightsTest : public testing::Test {
 protected:
  std::string folder() const { return (scratch_.path() / "packed").string(); }

  /// The files of the folder.
  std::vector<fs::path> files() const {
    return fs::exists(folder()) ? list_directory(folder()) : std::vector<fs::path>();
  }

  Decoder load(const fs::path& model, const CancellationFlag* cancelled = nullptr) {
    return Decoder::load(model.string(), *backend_, {.packed_weights = folder(), .cancelled = cancelled});
  }

  /// Logits of some tokens, of a decoder with or without the folder.
  Tensor logits(const Decoder& decoder) const {
    const std::vector<int32_t> tokens{3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5};
    KvCache cache = decoder.make_cache();
    return decoder.forward(tokens, cache, {LogitRows::all});
  }
  void expect_same_logits(const fs::path& model) {
    const Tensor expected = logits(Decoder::load(model.string(), *backend_));
    const Tensor found = logits(load(model));
    ASSERT_EQ(found.byte_size(), expected.byte_size());
    EXPECT_EQ(std::memcmp(found.bytes(), expected.bytes(), expected.byte_size()), 0) << model;
  }

  /// A copy whose files may be changed.
  fs::path copy_of(const GoldenModel& golden) const {
    const fs::path copy = scratch_.path() / "copy";
    fs::copy(golden.directory(), copy, fs::copy_options::recursive);
    return copy;
  }

  TemporaryDirectory scratch_;
  std::unique_ptr<Backend> backend_ = make_cpu_backend();
};

TEST_F(PackedWeightsTest, TheFirstLoadMakesThemAndTheNextReadsThem) {
  for (const char* name : {"autoawq_32", "ct_asym_32", "ct_sym_32", "ct_asym_channel"}) {
    const GoldenModel golden(name);
    fs::remove_all(folder());
    expect_same_logits(golden.directory());
    ASSERT_EQ(files().size(), 1u) << name;
    const auto time = fs::last_write_time(files()[0]);
    const auto size = fs::file_size(files()[0]);
    expect_same_logits(golden.directory());
    ASSERT_EQ(files().size(), 1u);
    EXPECT_EQ(fs::last_write_time(files()[0]), time);
    EXPECT_EQ(fs::file_size(files()[0]), size);
  }
}

TEST_F(PackedWeightsTest, ADecoderReadsTheFileAndNotTheCheckpoint) {
  const fs::path model = copy_of(GoldenModel("autoawq_32"));
  const Tensor before = logits(load(model));
  // Codes of zero everywhere: what the file holds must be what is computed with, the time being as it was.
  const fs::path file = files().at(0);
  const SafetensorsFile packed(file.string());
  const fs::path other = scratch_.path() / "other.safetensors";
  {
    ShardFile out(other, 1 << 16);
    for (const std::string& name : packed.names()) {
      Tensor tensor = packed.tensor(name);
      if (tensor.dtype() == DType::u8) tensor = Tensor::zeros(DType::u8, tensor.shape());
      out.append(name, tensor);
    }
    out.close();
  }
  fs::rename(other, file);
  const Tensor after = logits(load(model));
  EXPECT_NE(std::memcmp(after.bytes(), before.bytes(), before.byte_size()), 0);
}

TEST_F(PackedWeightsTest, AChangedCheckpointHasAFileOfItsOwn) {
  const fs::path model = copy_of(GoldenModel("autoawq_32"));
  expect_same_logits(model);
  const fs::path shard = model / "model.safetensors";
  fs::last_write_time(shard, fs::last_write_time(shard) + std::chrono::seconds(1));
  expect_same_logits(model);
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(PackedWeightsTest, ADamagedFileIsMadeAnew) {
  const GoldenModel golden("autoawq_32");
  load(golden.directory());
  const fs::path file = files().at(0);
  const auto size = fs::file_size(file);
  for (const uintmax_t left : {uintmax_t{0}, uintmax_t{5}, size / 2, size - 1}) {
    fs::resize_file(file, left);
    expect_same_logits(golden.directory());
    EXPECT_EQ(fs::file_size(file), size);
  }
}

TEST_F(PackedWeightsTest, LayoutsThatNoBackEndHasMadeAreMadeAnew) {
  const GoldenModel golden("autoawq_32");
  load(golden.directory());
  const fs::path file = files().at(0);
  const fs::path original = scratch_.path() / "original.safetensors";
  fs::rename(file, original);
  const SafetensorsFile packed(original.string());
  // Version, outputs, depth, width, types of scales and codes, middle, stored zeros, bytes of a panel.
  for (int64_t field = 0; field < 8; ++field) {
    for (const int64_t value : {int64_t{-1}, int64_t{7}, int64_t{1} << 62}) {
      fs::remove(file);
      ShardFile out(file, 1 << 16);
      for (const std::string& name : packed.names()) {
        Tensor tensor = packed.tensor(name);
        if (tensor.dtype() == DType::i64) {
          std::vector<int64_t> numbers(tensor.values<int64_t>().begin(), tensor.values<int64_t>().end());
          numbers[static_cast<size_t>(field)] = value;
          tensor = Tensor::of<int64_t>({8}, numbers);
        }
        out.append(name, tensor);
      }
      out.close();
      // Nothing tells that another zero is wrong; all else is seen, and made anew.
      if (field != 5 || value != 7) expect_same_logits(golden.directory());
    }
  }
}

TEST_F(PackedWeightsTest, LoadsAtOnceGiveTheSame) {
  const GoldenModel golden("autoawq_32");
  const Tensor expected = logits(Decoder::load(golden.directory().string(), *backend_));
  std::vector<std::thread> threads;
  std::atomic<int> same{0};
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      const auto backend = make_cpu_backend();
      for (int round = 0; round < 5; ++round) {
        const Decoder decoder =
            Decoder::load(golden.directory().string(), *backend, {.packed_weights = folder()});
        const Tensor found = logits(decoder);
        if (std::memcmp(found.bytes(), expected.bytes(), expected.byte_size()) == 0) ++same;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(same, 20);
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(PackedWeightsTest, WhatAKilledProcessLeftGoes) {
  const GoldenModel golden("autoawq_32");
  load(golden.directory());
  const fs::path file = files().at(0);
  fs::remove(file);
  write_file_atomically(file.string() + ".partial", "half");
  write_file_atomically(file.string() + ".lock", "");
  expect_same_logits(golden.directory());
  EXPECT_EQ(files(), std::vector<fs::path>{file});
}

TEST_F(PackedWeightsTest, TheModelsOwnFolderIsRefused) {
  const fs::path model = copy_of(GoldenModel("autoawq_32"));
  EXPECT_THAT([&] { Decoder::load(model.string(), *backend_, {.packed_weights = model.string() + "/."}); },
              throws_error(ErrorKind::invalid_argument, HasSubstr("the model's own folder")));
}

/// A file for each form of the head; the second load of either reads it where it lies.
TEST_F(PackedWeightsTest, HoldARoundedHead) {
  const GoldenModel golden("autoawq_32");
  const auto integers = make_cpu_backend({.activations = ActivationMode::int8});
  const auto load_with = [&](LmHead lm_head, const std::string& to) {
    return Decoder::load(golden.directory().string(), *integers, {.packed_weights = to, .lm_head = lm_head});
  };
  for (const LmHead lm_head : {LmHead::automatic, LmHead::stored}) {
    const Tensor expected = logits(load_with(lm_head, ""));
    for (int i = 0; i < 2; ++i) {
      const Decoder decoder = load_with(lm_head, folder());
      EXPECT_EQ(decoder.head_form(), lm_head == LmHead::stored ? "f16" : "int8");
      const Tensor found = logits(decoder);
      EXPECT_EQ(std::memcmp(found.bytes(), expected.bytes(), expected.byte_size()), 0);
    }
  }
  ASSERT_EQ(files().size(), 2u);
  const auto holds_head = [](const fs::path& file) {
    return SafetensorsFile(file.string()).contains("head");
  };
  EXPECT_NE(holds_head(files()[0]), holds_head(files()[1]));
}

TEST_F(PackedWeightsTest, OfADenseModelHoldTheHeadThatIsAskedFor) {
  const GoldenModel golden("llama_gqa");
  const auto load_int8 = [&](const std::string& to) {
    return Decoder::load(golden.directory().string(), *backend_,
                         {.packed_weights = to, .lm_head = LmHead::int8});
  };
  const Tensor expected = logits(load_int8(""));
  for (int i = 0; i < 2; ++i) {
    const Tensor found = logits(load_int8(folder()));
    EXPECT_EQ(std::memcmp(found.bytes(), expected.bytes(), expected.byte_size()), 0);
  }
  ASSERT_EQ(files().size(), 1u);
  EXPECT_EQ(SafetensorsFile(files()[0].string()).names().size(), 2u);
}

TEST_F(PackedWeightsTest, ADenseModelHasNone) {
  expect_same_logits(GoldenModel("llama_gqa").directory());
  EXPECT_TRUE(files().empty());
}

TEST_F(PackedWeightsTest, WhatIsCancelledLeavesNothing) {
  const CancellationFlag stop{true};
  EXPECT_THAT([&] { load(GoldenModel("autoawq_32").directory(), &stop); },
              throws_error(ErrorKind::cancelled, testing::_));
  EXPECT_TRUE(files().empty());
}

TEST_F(PackedWeightsTest, AFolderThatCannotBeIsRefused) {
  write_file_atomically((scratch_.path() / "file").string(), "");
  const std::string inside = (scratch_.path() / "file" / "folder").string();
  EXPECT_THAT(
      [&] {
        Decoder::load(GoldenModel("autoawq_32").directory().string(), *backend_, {.packed_weights = inside});
      },
      throws_error(ErrorKind::io, HasSubstr(inside)));
}

}  // namespace
}  // namespace salient
