#include "server/device/cuda_stream.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/memory/memory.h"
#include "base/check.h"
#include "base/status_macros.h"
#include "kernels/cuda/copy/copy.h"
#include "kernels/cuda/encode/encode.h"
#include "kernels/cuda/verify/verify.h"
#include "server/device/cuda_memory.h"
#include "server/device/work_checks.h"

namespace turbokv {
namespace {

constexpr size_t kAlignmentBytes = 16;
constexpr size_t kChunkBytes = size_t{256} << 10;
constexpr size_t kMaxFrameChunks = 8;  // more than that since a notification: the stream makes one
constexpr size_t kMaxChunks = 32;      // more than that in flight: calls wait
constexpr size_t kFirstScratchBytes = size_t{256} << 10;
constexpr int64_t kUnitBytes = kSectionAlignmentBytes;  // pages are numbered by these

size_t Align(size_t bytes) {
  return (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
}

// Pages of one call as kernels address them: numbers from the lowest on; 0 where there is no page.
struct NumberedPages {
  cuda::PagePool pool;
  std::vector<int32_t> ids;
};
NumberedPages NumberPages(const PageLayout& layout, absl::Span<const uint8_t* const> pages) {
  const uint8_t* lowest = nullptr;
  const uint8_t* highest = nullptr;
  for (const uint8_t* page : pages) {
    if (page == nullptr) continue;
    if (lowest == nullptr || page < lowest) lowest = page;
    if (page > highest) highest = page;
  }
  Check(static_cast<size_t>(highest - lowest) < kMaxPageSpanBytes,
        "pages of one call lie within 256 GiB");
  NumberedPages numbered;
  numbered.pool.shape = layout.shape;
  numbered.pool.device_base = const_cast<uint8_t*>(lowest);
  numbered.pool.stride_bytes = kUnitBytes;
  numbered.pool.page_count =
      std::min<int64_t>((highest - lowest) / kUnitBytes + 1, std::numeric_limits<int32_t>::max());
  for (const uint8_t* page : pages) {
    numbered.ids.push_back(page == nullptr ? 0
                                           : static_cast<int32_t>((page - lowest) / kUnitBytes));
  }
  return numbered;
}

// Pages [begin, end) of a work item, all of them wanted.
struct Run {
  size_t begin = 0;
  size_t end = 0;
};
std::vector<Run> RunsOf(absl::Span<uint8_t* const> pages) {
  std::vector<Run> runs;
  for (size_t i = 0; i < pages.size(); ++i) {
    if (pages[i] == nullptr) continue;
    if (runs.empty() || runs.back().end != i) runs.push_back({i, i});
    ++runs.back().end;
  }
  return runs;
}

}  // namespace

absl::StatusOr<std::unique_ptr<CudaStream>> CudaStream::Create(CudaContext* context) {
  TURBOKV_RETURN_IF_ERROR(context->Enter());
  auto stream = absl::WrapUnique(new CudaStream(context));
  TURBOKV_RETURN_IF_ERROR(context->Check(
      cudaStreamCreateWithFlags(&stream->stream_, cudaStreamNonBlocking), "making a stream"));
  TURBOKV_RETURN_IF_ERROR(stream->Scratch(kFirstScratchBytes).status());
  return stream;
}

CudaStream::~CudaStream() {
  if (stream_ == nullptr) return;
  const absl::Status ignored = Wait();
  cudaSetDevice(context_->info().index);
  cudaStreamDestroy(stream_);
}

absl::StatusOr<CudaStream::Chunk> CudaStream::TakeChunk(size_t bytes) {
  {
    MutexLock lock(&mutex_);
    while (idle_chunks_.empty() && chunk_count_ >= kMaxChunks) returned_.wait(mutex_);
    if (!idle_chunks_.empty()) {
      Chunk chunk = std::move(idle_chunks_.back());
      idle_chunks_.pop_back();
      if (chunk->size_bytes() >= bytes) return chunk;
      --chunk_count_;  // too small: freed, and a larger one made
    }
    ++chunk_count_;
  }
  auto chunk = AllocatePinnedMemory(context_, std::max(bytes, kChunkBytes));
  if (chunk.ok()) return chunk;
  MutexLock lock(&mutex_);
  --chunk_count_;
  return chunk.status();
}

absl::StatusOr<uint8_t*> CudaStream::Stage(size_t bytes) {
  const size_t aligned_bytes = Align(bytes);
  const bool fits = !frame_.chunks.empty() &&
                    frame_.chunks.back()->size_bytes() - frame_.used_bytes >= aligned_bytes;
  if (!fits) {
    if (frame_.chunks.size() >= kMaxFrameChunks) Notify([](const absl::Status&) {});
    TURBOKV_ASSIGN_OR_RETURN(Chunk chunk, TakeChunk(aligned_bytes));
    frame_.chunks.push_back(std::move(chunk));
    frame_.used_bytes = 0;
  }
  uint8_t* const staged = frame_.chunks.back()->data() + frame_.used_bytes;
  frame_.used_bytes += aligned_bytes;
  return staged;
}

absl::StatusOr<uint8_t*> CudaStream::Scratch(size_t bytes) {
  if (scratch_ == nullptr || scratch_->size_bytes() < bytes) {
    // Rare: calls are of similar sizes. What was enqueued still uses the old one.
    TURBOKV_RETURN_IF_ERROR(
        context_->Check(cudaStreamSynchronize(stream_), "waiting to grow scratch"));
    size_t grown_bytes = scratch_ == nullptr ? bytes : scratch_->size_bytes();
    while (grown_bytes < bytes) grown_bytes *= 2;
    scratch_.reset();
    TURBOKV_ASSIGN_OR_RETURN(scratch_, AllocateCudaMemory(context_, grown_bytes));
  }
  return scratch_->data();
}

absl::StatusOr<CudaStream::Numbers> CudaStream::Upload(absl::Span<const int32_t> ids, size_t words,
                                                       size_t workspace_bytes) {
  const size_t words_bytes = Align(words * sizeof(uint32_t));
  const size_t ids_bytes = Align(ids.size() * sizeof(int32_t));
  TURBOKV_ASSIGN_OR_RETURN(uint8_t* const device,
                           Scratch(words_bytes + ids_bytes + workspace_bytes));
  TURBOKV_ASSIGN_OR_RETURN(uint8_t* const pinned, Stage(words_bytes + ids_bytes));
  std::memset(pinned, 0, words_bytes);
  std::memcpy(pinned + words_bytes, ids.data(), ids.size() * sizeof(int32_t));
  TURBOKV_RETURN_IF_ERROR(CopyToDevice(device, pinned, words_bytes + ids_bytes));
  Numbers numbers;
  numbers.pinned_words = reinterpret_cast<uint32_t*>(pinned);
  numbers.device_words = reinterpret_cast<uint32_t*>(device);
  numbers.device_ids = reinterpret_cast<const int32_t*>(device + words_bytes);
  numbers.device_workspace = device + words_bytes + ids_bytes;
  return numbers;
}

absl::Status CudaStream::ReadBack(const Numbers& numbers, std::vector<int64_t> run_begins,
                                  DeviceVerdict* verdict) {
  TURBOKV_RETURN_IF_ERROR(CopyToHost(reinterpret_cast<uint8_t*>(numbers.pinned_words),
                                     reinterpret_cast<const uint8_t*>(numbers.device_words),
                                     run_begins.size() * sizeof(uint32_t)));
  frame_.verdicts.push_back({numbers.pinned_words, std::move(run_begins), verdict});
  return absl::OkStatus();
}

absl::Status CudaStream::CopyToDevice(uint8_t* device, const uint8_t* host, size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  return context_->Check(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, stream_),
                         "copying to the device");
}

absl::Status CudaStream::CopyToHost(uint8_t* host, const uint8_t* device, size_t bytes) {
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  return context_->Check(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, stream_),
                         "copying to the host");
}

absl::Status CudaStream::CopyPages(absl::Span<const DeviceCopy> copies) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceCopies(copies));
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  if (copies.empty()) return absl::OkStatus();
  if (copies.size() == 1) {
    return context_->Check(cudaMemcpyAsync(copies[0].to, copies[0].from, copies[0].bytes,
                                           cudaMemcpyDeviceToDevice, stream_),
                           "copying on the device");
  }
  const size_t descriptor_bytes = copies.size() * sizeof(cuda::CopyDescriptor);
  TURBOKV_ASSIGN_OR_RETURN(uint8_t* const device, Scratch(descriptor_bytes));
  TURBOKV_ASSIGN_OR_RETURN(uint8_t* const pinned, Stage(descriptor_bytes));
  cuda::CopyArguments arguments;
  auto* const descriptors = reinterpret_cast<cuda::CopyDescriptor*>(pinned);
  for (size_t i = 0; i < copies.size(); ++i) {
    descriptors[i] = {copies[i].from, copies[i].to, copies[i].bytes};
    arguments.largest_bytes = std::max(arguments.largest_bytes, copies[i].bytes);
  }
  arguments.copies = reinterpret_cast<const cuda::CopyDescriptor*>(device);
  arguments.count = static_cast<int>(copies.size());
  TURBOKV_RETURN_IF_ERROR(CopyToDevice(device, pinned, descriptor_bytes));
  return context_->Check(cuda::CopyPages(arguments, stream_));
}

absl::Status CudaStream::Encode(const DeviceEncode& work, DeviceVerdict* verdict) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceEncode(work));
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  const std::vector<Run> runs = RunsOf(work.device_pages);
  if (runs.empty()) return absl::OkStatus();
  const NumberedPages pages = NumberPages(work.layout, work.device_pages);
  // Runs use the workspace one after the other.
  TURBOKV_ASSIGN_OR_RETURN(
      const Numbers numbers,
      Upload(pages.ids, runs.size(),
             cuda::EncodeWorkspaceBytes(static_cast<int>(pages.ids.size()), work.layout.shape)));
  cuda::EncodeArguments arguments;
  arguments.pool = pages.pool;
  arguments.source.type = work.type;
  arguments.source.token_stride = work.token_stride;
  arguments.source.head_stride = work.head_stride;
  arguments.layer = work.identity.layer;
  arguments.generation = work.identity.generation;
  arguments.spec_id = work.identity.spec_id;
  arguments.workspace = numbers.device_workspace;
  std::vector<int64_t> run_begins;
  for (const Run& run : runs) {
    const size_t first_token = run.begin * kPageTokens;
    const size_t offset_bytes =
        first_token * static_cast<size_t>(work.token_stride) * ValueBytes(work.type);
    arguments.source.k = work.device_k + offset_bytes;
    arguments.source.v = work.device_v + offset_bytes;
    arguments.pages = static_cast<int>(run.end - run.begin);
    arguments.page_ids = numbers.device_ids + run.begin;
    arguments.first_token = work.identity.first_token + first_token;
    arguments.non_finite_page = numbers.device_words + run_begins.size();
    TURBOKV_RETURN_IF_ERROR(context_->Check(cuda::EncodePages(arguments, stream_)));
    run_begins.push_back(static_cast<int64_t>(run.begin));
  }
  if (verdict == nullptr) return absl::OkStatus();
  return ReadBack(numbers, std::move(run_begins), verdict);
}

absl::Status CudaStream::VerifyChecksums(const PageLayout& layout,
                                         absl::Span<const uint8_t* const> device_pages,
                                         DeviceVerdict* verdict) {
  TURBOKV_RETURN_IF_ERROR(CheckDeviceShape(layout.shape));
  TURBOKV_RETURN_IF_ERROR(CheckDevicePages(device_pages, /*may_be_null=*/false));
  TURBOKV_RETURN_IF_ERROR(context_->Enter());
  if (device_pages.empty()) return absl::OkStatus();
  const NumberedPages pages = NumberPages(layout, device_pages);
  TURBOKV_ASSIGN_OR_RETURN(const Numbers numbers, Upload(pages.ids, 1, 0));
  cuda::VerifyArguments arguments;
  arguments.pool = pages.pool;
  arguments.page_ids = numbers.device_ids;
  arguments.pages = static_cast<int>(pages.ids.size());
  arguments.bad_page = numbers.device_words;
  TURBOKV_RETURN_IF_ERROR(context_->Check(cuda::VerifyPages(arguments, stream_)));
  return ReadBack(numbers, {0}, verdict);
}

void CudaStream::Notify(std::function<void(absl::Status)> done) {
  auto frame = std::make_shared<Frame>(std::exchange(frame_, {}));
  notifier_.Notify(stream_,
                   [this, frame = std::move(frame), done = std::move(done)](absl::Status status) {
                     Close(std::move(*frame), status);
                     done(std::move(status));
                   });
}

void CudaStream::Close(Frame frame, const absl::Status& status) {
  if (status.ok()) {
    for (const PendingVerdict& pending : frame.verdicts) {
      for (size_t run = 0; run < pending.run_begins.size(); ++run) {
        const int64_t word = pending.pinned_words[run];
        if (word == 0) continue;
        pending.verdict->bad_page =
            std::max(pending.verdict->bad_page, pending.run_begins[run] + word - 1);
      }
    }
  }
  MutexLock lock(&mutex_);
  for (Chunk& chunk : frame.chunks) idle_chunks_.push_back(std::move(chunk));
  returned_.notify_all();
}

}  // namespace turbokv
