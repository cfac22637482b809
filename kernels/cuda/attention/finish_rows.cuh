// Results inside the pages kernel, for calls with one pool and no tails: a thread block that has
// left its partial results counts itself as arrived at every row of its units, and the last of a
// row's blocks to arrive adds the row's partial results up and writes the result. They are added in
// the order of their slots, whichever block is the last.
#pragma once

#include "kernels/cuda/attention/partial.cuh"
#include "kernels/cuda/attention/row_output.cuh"
#include "kernels/cuda/attention/schedule.cuh"
#include "kernels/cuda/primitives/hadamard.cuh"
#include "kernels/cuda/primitives/warp_reduce.cuh"

namespace turbokv::cuda {

// One warp. All members are called by all its lanes.
template <int kHeadDim, int kRowTiles, bool kRotated>
class RowFinisher {
 public:
  TURBOKV_DEVICE RowFinisher(const PagesParams& params, const NumberRange& all, int lane)
      : params_(params), all_(all), lane_(lane) {}

  // The rows of the units that the block's `share` has slices of, divided among its warps.
  // `start`: the sequence that holds the share's first number. The block's partial results are
  // written, with a __syncthreads() since.
  TURBOKV_DEVICE void Run(const NumberRange& share, const SequenceStart& start) const {
    const int warps = blockDim.x / kWarpLanes;
    const int unit_rows = min(kRows, params_.rows.rows);
    int turn = threadIdx.x / kWarpLanes;  // the warp's first row of the sequence
    int first = start.first_number;
    for (int sequence = start.sequence; first < share.end; ++sequence) {
      const PageRange pages = ListedPages(params_.batch, params_.lists, sequence);
      const int slices = pages.end - pages.begin;
      if (slices == 0) continue;
      const NumberRange units = UnitsInShare(share, first, params_.rows.units, UnitNumbers(slices));
      const int rows = max(units.end - units.begin, 0) * unit_rows;
      for (; turn < rows; turn += warps * kWarpLanes) {
        const int own = turn + warps * lane_;  // of the lane: it arrives there
        bool last = false;
        if (own < rows) {
          const int unit = units.begin + own / unit_rows;
          const int row = own % unit_rows;
          last = PlaceOf(sequence, unit, row).row < params_.rows.rows &&
                 ArriveLast(Divide(sequence, unit, first, slices), row);
        }
        __syncwarp();
        for (unsigned left = __ballot_sync(~0u, last); left != 0; left &= left - 1) {
          const int index = turn + warps * (__ffs(left) - 1);
          const int unit = units.begin + index / unit_rows;
          const int row = index % unit_rows;
          Finish(Divide(sequence, unit, first, slices), PlaceOf(sequence, unit, row), row);
        }
      }
      turn = (turn - rows) % warps;
      first += UnitNumbers(slices) * params_.rows.units;
    }
  }

 private:
  static constexpr int kRows = kTileRows * kRowTiles;
  static constexpr int kCount = kHeadDim / kWarpLanes;
  static constexpr int kAtOnce = 48 / kCount;

  TURBOKV_DEVICE RowPlace PlaceOf(int sequence, int unit, int row) const {
    const int units_per_head = params_.rows.units_per_head;
    return {sequence, unit / units_per_head, unit % units_per_head * kRows + row};
  }

  // `first`: of the sequence's numbers.
  TURBOKV_DEVICE UnitDivision Divide(int sequence, int unit, int first, int slices) const {
    const int begin = first + unit * UnitNumbers(slices) + kUnitOverhead;
    return {all_,
            {begin, begin + slices},
            sequence * params_.rows.units + unit,
            static_cast<int>(gridDim.x),
            static_cast<int>(blockDim.x / kWarpLanes)};
  }

  // Whether all other blocks with slices of the unit have arrived.
  TURBOKV_DEVICE bool ArriveLast(const UnitDivision& division, int row) const {
    const int others = division.LastBlock() - division.FirstBlock();
    if (others == 0) return true;
    return CountArrival(params_.finish.arrivals + int64_t{division.unit} * kRows + row) == others;
  }

  TURBOKV_DEVICE void Finish(const UnitDivision& division, const RowPlace& place, int row) const {
    RowSums<kHeadDim> sums;
    const int places = division.Places();
    for (int first = 0; first < places; first += kWarpLanes) {
      const int place = first + lane_;
      AddSlots(place < places ? division.Slot(place) : kNoSlot, min(places - first, kWarpLanes),
               row, sums);
    }
    if constexpr (kRotated) RotateHead<kHeadDim, true>(sums.values, lane_);
    StoreRow(params_.finish.output, params_.rows, params_.batch.queries, place, sums, lane_);
  }

  // The partial results in the slots of the first `count` lanes, in their order.
  TURBOKV_DEVICE void AddSlots(int slot, int count, int row, RowSums<kHeadDim>& sums) const {
    float2 stats{kNoScore, 0.0f};
    if (slot != kNoSlot) {
      const int64_t index = int64_t{slot} * kRows + row;
      stats = *reinterpret_cast<const float2*>(params_.partial_stats + 2 * index);
    }
    float factor = 0.0f;
#pragma unroll 1
    for (int begin = 0; begin < count; begin += kAtOnce) {
      float values[kAtOnce][kCount];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        int64_t source = __shfl_sync(~0u, slot, (begin + i) % kWarpLanes);
        if (begin + i >= count) source = kNoSlot;
        const float* const from = params_.partial_values + (source * kRows + row) * kHeadDim;
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          values[i][c] = source != kNoSlot ? from[kWarpLanes * c + lane_] : 0.0f;
        }
      }
      if (begin == 0) {  // only now, so that the loads are on their way together
        sums.RaiseLargest(fmaxf(sums.largest, WarpMax(stats.x)));
        factor = slot != kNoSlot ? Exp2(stats.x - sums.largest) : 0.0f;
        sums.sum += WarpSum(factor * stats.y);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float own = __shfl_sync(~0u, factor, (begin + i) % kWarpLanes);
#pragma unroll
        for (int c = 0; c < kCount; ++c) {
          sums.values[c] = __fmaf_rn(values[i][c], own, sums.values[c]);
        }
      }
    }
  }

  const PagesParams& params_;
  const NumberRange all_;
  const int lane_;
};

}  // namespace turbokv::cuda
