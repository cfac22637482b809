// Walks through a warp's share of slices and knows where each lies in memory.
#pragma once

#include "kernels/cuda/attention/schedule.cuh"

namespace turbokv::cuda {

// Where a warp is, in shared memory: registers are scarce, and this is looked at once a slice.
struct CursorPlace {
  int page_ids[kWarpLanes];      // of 32 entries of the table, from window_begin on
  int page_indices[kWarpLanes];  // only of lists
  int window_begin;
  SequenceStart sought;  // the sequence of the share's first number
  int sequence;
  int unit;   // of the sequence
  int begin;  // entries of the sequence that are worked on
  int end;
  int slice_offset;  // from a page's first byte to the slice of the unit's KV head
};

// All members are called by a whole warp.
class SliceCursor {
 public:
  TURBOKV_DEVICE SliceCursor(const PagesParams& params, CursorPlace* place, int lane)
      : params_(params), place_(*place), lane_(lane) {}

  // Goes to the first slice at `number` or after it; returns how many numbers that is on.
  TURBOKV_DEVICE int Seek(int number) {
    const int units = params_.rows.units;
    const SequenceStart start = FindSequence(params_.batch, params_.lists, units, number, lane_);
    if (lane_ == 0) place_.sought = start;
    const PageRange pages = ListedPages(params_.batch, params_.lists, start.sequence);
    const int offset = number - start.first_number;
    const int unit_numbers = UnitNumbers(pages.end - pages.begin);
    const int slice = offset % unit_numbers - kUnitOverhead;
    Enter(start.sequence, offset / unit_numbers, pages);
    entry_ = pages.begin + max(slice, 0);
    LoadWindow();
    return max(-slice, 0);
  }

  TURBOKV_DEVICE bool IsLastOfUnit() const { return entry_ + 1 == place_.end; }

  // To the next slice, which may be of another unit.
  TURBOKV_DEVICE void Advance() {
    ++entry_;
    if (entry_ != stop_) return;
    if (entry_ == place_.end) EnterNextUnit();
    LoadWindow();
  }

  // The unit, numbered through all sequences.
  TURBOKV_DEVICE int unit() const { return place_.sequence * params_.rows.units + place_.unit; }
  // Which page of the sequence it is.
  TURBOKV_DEVICE int page() const {
    return params_.lists.page_indices == nullptr
               ? entry_
               : place_.page_indices[entry_ - place_.window_begin];
  }
  TURBOKV_DEVICE const uint8_t* page_bytes() const {
    return params_.pages + place_.page_ids[entry_ - place_.window_begin] * params_.stride_bytes;
  }
  TURBOKV_DEVICE int slice_offset() const { return place_.slice_offset; }

 private:
  TURBOKV_DEVICE void EnterNextUnit() {
    int sequence = place_.sequence;
    int unit = place_.unit + 1;
    PageRange pages{place_.begin, place_.end};
    if (unit == params_.rows.units) {
      do {
        pages = ListedPages(params_.batch, params_.lists, ++sequence);
      } while (pages.begin == pages.end);
      unit = 0;
    }
    Enter(sequence, unit, pages);
    entry_ = pages.begin;
  }

  TURBOKV_DEVICE void Enter(int sequence, int unit, const PageRange& pages) {
    __syncwarp();
    if (lane_ == 0) {
      place_.sequence = sequence;
      place_.unit = unit;
      place_.begin = pages.begin;
      place_.end = pages.end;
      place_.slice_offset =
          kPageHeaderBytes + unit / params_.rows.units_per_head * params_.slice_bytes;
    }
    __syncwarp();
  }

  TURBOKV_DEVICE void LoadWindow() {
    __syncwarp();
    const int entry = entry_ + lane_;
    if (entry < place_.end) {
      const int64_t index = static_cast<int64_t>(place_.sequence) * params_.batch.max_pages + entry;
      place_.page_ids[lane_] = params_.lists.page_ids[index];
      if (params_.lists.page_indices != nullptr) {
        place_.page_indices[lane_] = params_.lists.page_indices[index];
      }
    }
    if (lane_ == 0) place_.window_begin = entry_;
    stop_ = min(entry_ + kWarpLanes, place_.end);
    __syncwarp();
  }

  const PagesParams& params_;
  CursorPlace& place_;
  const int lane_;
  int entry_ = 0;
  int stop_ = 0;  // the entry before which something must be loaded
};

}  // namespace turbokv::cuda
