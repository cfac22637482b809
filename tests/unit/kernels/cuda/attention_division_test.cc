// How slices are divided among warps, and where their partial results are looked for: what the
// kernels do with the numbers, done one after the other.
#include <algorithm>
#include <map>
#include <random>
#include <set>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/cuda/attention/division.cuh"

namespace turbokv::cuda {
namespace {

struct Batch {
  int units;               // of a sequence
  std::vector<int> pages;  // of every sequence

  int unit_count() const { return units * static_cast<int>(pages.size()); }
  int PagesOf(int unit) const { return pages[unit / units]; }
  int NumbersOf(int unit) const { return PagesOf(unit) == 0 ? 0 : UnitNumbers(PagesOf(unit)); }
  int NumbersBefore(int unit) const {
    int numbers = 0;
    for (int i = 0; i < unit; ++i) numbers += NumbersOf(i);
    return numbers;
  }
};

struct Place {
  int unit;
  int slice;
};

// As SliceCursor goes.
class Cursor {
 public:
  explicit Cursor(const Batch& batch) : batch_(batch) {}

  int Seek(int number) {
    place_.unit = 0;
    while (number >= batch_.NumbersBefore(place_.unit) + batch_.NumbersOf(place_.unit)) {
      ++place_.unit;
    }
    const int slice = number - batch_.NumbersBefore(place_.unit) - kUnitOverhead;
    place_.slice = std::max(slice, 0);
    return std::max(-slice, 0);
  }
  bool IsLastOfUnit() const { return place_.slice + 1 == batch_.PagesOf(place_.unit); }
  void Advance() {
    const bool last = IsLastOfUnit();
    ++place_.slice;
    if (!last) return;
    do {
      ++place_.unit;
    } while (batch_.PagesOf(place_.unit) == 0);
    place_.slice = 0;
  }
  const Place& place() const { return place_; }

 private:
  const Batch& batch_;
  Place place_{};
};

// What all warps of a kernel do.
struct Work {
  std::map<std::pair<int, int>, int> done;       // (unit, slice): how often
  std::map<int, std::pair<int, int>> slots;      // slot: (unit, slices in it)
  std::map<int, std::set<int>> blocks;           // unit: blocks that work on it
  int most_slices = 0, fewest_slices = 1 << 30;  // of a warp
};

Work DoAll(const Batch& batch, int blocks, int warps) {
  Work work;
  const NumberRange all{0, batch.NumbersBefore(batch.unit_count())};
  for (int block = 0; block < blocks; ++block) {
    std::vector<std::pair<int, int>> held(warps, {-1, 0});  // unit and slices at the warp's end
    for (int warp = 0; warp < warps; ++warp) {
      const NumberRange share = all.Part(block, blocks).Part(warp, warps);
      Cursor cursor(batch);
      ShareWalk walk(share, share.begin < share.end ? cursor.Seek(share.begin) : 0);
      int slices = 0;
      while (!walk.done()) {
        const auto [unit, slice] = cursor.place();
        ++work.done[{unit, slice}];
        ++slices;
        work.blocks[unit].insert(block);
        held[warp].first = unit;
        ++held[warp].second;
        const bool last_of_unit = cursor.IsLastOfUnit();
        const bool more = walk.HasNext(last_of_unit);
        if (!more) break;
        cursor.Advance();
        walk.Advance(last_of_unit);
        if (last_of_unit) {
          EXPECT_TRUE(work.slots.insert({blocks * warps + unit, held[warp]}).second);
          held[warp] = {-1, 0};
        }
      }
      work.most_slices = std::max(work.most_slices, slices);
      work.fewest_slices = std::min(work.fewest_slices, slices);
    }
    // As MergeWarps does.
    for (int first = 0; first < warps;) {
      const int unit = held[first].first;
      int last = first + 1, slices = held[first].second;
      for (; last < warps && (held[last].first == unit || held[last].first < 0); ++last) {
        slices += held[last].second;
      }
      if (unit >= 0) {
        EXPECT_TRUE(work.slots.insert({block * warps + first, {unit, slices}}).second);
      }
      first = last;
    }
  }
  return work;
}

// As RowFinisher walks through the units that a block arrives at.
void ExpectUnitsOfBlock(const Batch& batch, const Work& work, const NumberRange& all, int block,
                        int blocks) {
  const NumberRange share = all.Part(block, blocks);
  std::set<int> expected, actual;
  for (const auto& [unit, workers] : work.blocks) {
    if (workers.contains(block)) expected.insert(unit);
  }
  int sequence = 0, first = 0;
  const auto numbers = [&] { return batch.units * batch.NumbersOf(sequence * batch.units); };
  if (share.begin < share.end) {
    for (; share.begin >= first + numbers(); ++sequence) first += numbers();
  }
  for (; share.begin < share.end && first < share.end; ++sequence) {
    const int pages = batch.pages[sequence];
    if (pages == 0) continue;
    const NumberRange units = UnitsInShare(share, first, batch.units, UnitNumbers(pages));
    for (int unit = units.begin; unit < units.end; ++unit) {
      EXPECT_TRUE(actual.insert(sequence * batch.units + unit).second);
    }
    first += numbers();
  }
  EXPECT_EQ(actual, expected) << "block " << block;
}

void ExpectComplete(const Batch& batch, int blocks, int warps) {
  const Work work = DoAll(batch, blocks, warps);
  const NumberRange all{0, batch.NumbersBefore(batch.unit_count())};
  size_t slots = 0;
  for (int unit = 0; unit < batch.unit_count(); ++unit) {
    const int count = batch.PagesOf(unit);
    if (count == 0) {
      EXPECT_FALSE(work.blocks.contains(unit));
      continue;
    }
    for (int slice = 0; slice < count; ++slice) {
      const auto done = work.done.find({unit, slice});
      ASSERT_NE(done, work.done.end()) << "unit " << unit << " slice " << slice;
      ASSERT_EQ(done->second, 1);
    }
    const int first = batch.NumbersBefore(unit) + kUnitOverhead;
    const UnitDivision division{all, {first, first + count}, unit, blocks, warps};
    ASSERT_FALSE(division.empty());
    const std::set<int>& workers = work.blocks.at(unit);
    EXPECT_EQ(division.FirstBlock(), *workers.begin());
    EXPECT_EQ(division.LastBlock(), *workers.rbegin());
    EXPECT_EQ(division.LastBlock() - division.FirstBlock() + 1, static_cast<int>(workers.size()));
    int found = 0;
    const auto look = [&](int slot) {
      if (slot == kNoSlot) return;
      const auto partial = work.slots.find(slot);
      ASSERT_NE(partial, work.slots.end()) << "nothing was left in slot " << slot;
      EXPECT_EQ(partial->second.first, unit);
      found += partial->second.second;
      ++slots;
    };
    for (int place = 0; place < division.Places(); ++place) look(division.Slot(place));
    EXPECT_EQ(found, count) << "unit " << unit;
  }
  for (int block = 0; block < blocks; ++block) ExpectUnitsOfBlock(batch, work, all, block, blocks);
  EXPECT_EQ(slots, work.slots.size()) << "some partial result is never looked for";
  const int total_slices = static_cast<int>(work.done.size());
  if (batch.unit_count() == 1 && total_slices > blocks * warps) {
    EXPECT_LE(work.most_slices - work.fewest_slices, 1 + kUnitOverhead);
  }
}

TEST(AttentionDivisionTest, EverySliceIsDoneOnceAndFound) {
  std::mt19937 rng(5);
  const auto random = [&](int first, int last) {
    return std::uniform_int_distribution<int>(first, last)(rng);
  };
  for (int round = 0; round < 3000; ++round) {
    Batch batch{random(1, 9), {}};
    const int longest = random(0, 3) == 0 ? 60 : 6;
    for (int i = random(1, 8); i > 0; --i) {
      batch.pages.push_back(random(0, 3) == 0 ? 0 : random(0, longest));
    }
    const int blocks = random(0, 2) == 0 ? random(1, 200) : random(1, 12);
    const int warps = random(1, 12);
    SCOPED_TRACE(absl::StrCat("round ", round, " blocks ", blocks, " warps ", warps));
    ExpectComplete(batch, blocks, warps);
    if (HasFatalFailure() || HasNonfatalFailure()) return;
  }
}

TEST(AttentionDivisionTest, ShapesOfTheBenchmark) {
  for (const Batch& batch : {Batch{8, std::vector<int>(32, 32)}, Batch{8, {1024}}, Batch{8, {256}},
                             Batch{8, std::vector<int>(16, 256)}, Batch{1, {4096}}}) {
    ExpectComplete(batch, 132, 12);
  }
}

// A thread block has the less slices the more units it has to finish.
TEST(AttentionDivisionTest, ShortUnitsCountForMoreThanTheirSlices) {
  Batch batch{8, std::vector<int>(31, 1)};
  batch.pages.push_back(2048);
  const Work work = DoAll(batch, 132, 12);
  std::vector<int> units(132);
  for (const auto& [unit, workers] : work.blocks) {
    for (int block : workers) ++units[block];
  }
  const int numbers = batch.NumbersBefore(batch.unit_count()) / 132;
  for (int count : units) EXPECT_LE(count, numbers / (1 + kUnitOverhead) + 2);
}

}  // namespace
}  // namespace turbokv::cuda
