// How the slices of a batch are divided among thread blocks and warps, as arithmetic: kernels and a
// host test run it.
//
// Slices (sequence, unit, page) are numbered in that order. Before its slices, each unit has
// kUnitOverhead numbers that stand for no slice: entering a unit and finishing its rows takes a
// warp about as long as a slice does, and a thread block with hundreds of short units would
// otherwise be the last to end. Every thread block takes an equal share of the numbers, and every
// warp an equal share of its block's.
#pragma once

#include "kernels/cuda/primitives/host_device.cuh"

namespace turbokv::cuda {

inline constexpr int kUnitOverhead = 1;

// Numbers of a unit of so many slices, which are not none.
TURBOKV_HOST_DEVICE constexpr int UnitNumbers(int slices) { return slices + kUnitOverhead; }

// [begin, end) of the numbers, and its division into parts that differ by one at most: the first
// ones are the longer. There are fewer than 2^31 numbers.
struct NumberRange {
  int begin;
  int end;

  TURBOKV_HOST_DEVICE NumberRange Part(int index, int count) const {
    const int size = (end - begin) / count;
    const int longer = (end - begin) % count;
    const int first = begin + size * index + (index < longer ? index : longer);
    return {first, first + size + (index < longer ? 1 : 0)};
  }
  // Which of `count` parts holds `number`.
  TURBOKV_HOST_DEVICE int PartOf(int number, int count) const {
    const int size = (end - begin) / count;
    const int longer = (end - begin) % count;
    const int offset = number - begin;
    const int in_longer = longer * (size + 1);
    return offset < in_longer ? offset / (size + 1) : longer + (offset - in_longer) / size;
  }
};

inline constexpr int kNoSlot = -1;

// Where the partial results of one unit are. Each warp leaves what it has at its end in a slot
// [block][warp], merged with that of the block's next warps as far as they have the same unit; a
// warp that goes on to another unit leaves the unit's part in slot [blocks x warps + unit].
struct UnitDivision {
  NumberRange all;  // numbers of the batch
  NumberRange own;  // of the unit's slices
  int unit;         // numbered through all sequences
  int blocks;
  int warps;  // of a block

  TURBOKV_HOST_DEVICE bool empty() const { return own.begin == own.end; }
  // Thread blocks that work on the unit.
  TURBOKV_HOST_DEVICE int FirstBlock() const { return all.PartOf(own.begin, blocks); }
  TURBOKV_HOST_DEVICE int LastBlock() const { return all.PartOf(own.end - 1, blocks); }

  // Places where partial results of the unit may be.
  TURBOKV_HOST_DEVICE int Places() const { return LastBlock() - FirstBlock() + 2; }

  // The slot of a place, or kNoSlot if there is nothing. Places are the blocks, then the warp that
  // has the unit's last slice, should it go on to another unit.
  TURBOKV_HOST_DEVICE int Slot(int place) const {
    const int last_block = LastBlock();
    const int place_block = FirstBlock() + place;
    const bool is_warp = place_block > last_block;
    const int block = is_warp ? last_block : place_block;
    const NumberRange share = all.Part(block, blocks);
    // The block's first warp with a slice of this unit leads, unless it went on.
    const int first = own.begin > share.begin ? own.begin : share.begin;
    const int warp = share.PartOf(is_warp ? own.end - 1 : first, warps);
    const bool went_on = share.Part(warp, warps).end > own.end + kUnitOverhead;
    if (went_on != is_warp) return kNoSlot;
    return is_warp ? blocks * warps + unit : block * warps + warp;
  }
};

// The units [begin, end) of one sequence, whose numbers begin at `first`, that a share has slices
// of: `units` of `unit_numbers` numbers each.
TURBOKV_HOST_DEVICE NumberRange UnitsInShare(const NumberRange& share, int first, int units,
                                             int unit_numbers) {
  const int begin = share.begin > first ? (share.begin - first) / unit_numbers : 0;
  // Not those of which it has only numbers before their slices.
  const int end = (share.end - first - kUnitOverhead - 1 + unit_numbers) / unit_numbers;
  return {begin, end < units ? end : units};
}

// A warp's way through its share of numbers.
struct ShareWalk {
  int left;  // numbers from the current slice's on; none if not positive

  // `skipped`: numbers at the begin of the share that stand for no slice.
  TURBOKV_HOST_DEVICE ShareWalk(const NumberRange& share, int skipped)
      : left(share.end - share.begin - skipped) {}

  TURBOKV_HOST_DEVICE bool done() const { return left <= 0; }
  // Whether a slice follows the current one. `last_of_unit`: the current one is its unit's last.
  TURBOKV_HOST_DEVICE bool HasNext(bool last_of_unit) const { return left > Step(last_of_unit); }
  TURBOKV_HOST_DEVICE void Advance(bool last_of_unit) { left -= Step(last_of_unit); }

 private:
  TURBOKV_HOST_DEVICE static int Step(bool last_of_unit) {
    return last_of_unit ? 1 + kUnitOverhead : 1;
  }
};

}  // namespace turbokv::cuda
