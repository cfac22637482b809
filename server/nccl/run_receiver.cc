#include "server/nccl/run_receiver.h"

#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "kernels/cpu/non_finite.h"
#include "kernels/format/page_header.h"
#include "server/ingest/page_sink.h"

namespace turbokv {
namespace {

using Lane = TransferLanes::Lane;

size_t RawTensorBytes(const DeviceRun& run) { return run.run_bytes / 2; }

std::vector<NcclPiece> PiecesOf(const DeviceRun& run, const Lane& lane) {
  if (run.encoding == StoreEncoding::kPages) return {{lane.device(), run.run_bytes}};
  const size_t tensor_bytes = RawTensorBytes(run);
  return {{lane.device(), tensor_bytes}, {lane.device() + tensor_bytes, tensor_bytes}};
}

absl::Status EnqueueEncode(const DeviceRun& run, const Lane& lane, DeviceVerdict* verdict) {
  const PageShape& shape = run.layout.shape;
  DeviceEncode work;
  work.layout = run.layout;
  work.type = run.type;
  work.device_k = lane.device();
  work.device_v = lane.device() + RawTensorBytes(run);
  work.token_stride = int64_t{shape.kv_heads} * shape.head_dim;
  work.head_stride = shape.head_dim;
  work.identity = run.identity;
  work.device_pages = run.device_pages;
  return lane.stream()->Encode(work, verdict);
}

// Pages are copied before they are known to be good: nobody sees them before the store ends well.
absl::Status EnqueuePages(const DeviceRun& run, const Lane& lane, DeviceVerdict* verdict) {
  const size_t page_bytes = run.layout.page_bytes;
  std::vector<const uint8_t*> arrived;
  std::vector<DeviceCopy> copies;
  for (size_t i = 0; i < run.device_pages.size(); ++i) {
    const uint8_t* const page = lane.device() + i * page_bytes;
    arrived.push_back(page);
    copies.push_back({page, lane.device_headers() + i * kPageHeaderBytes, kPageHeaderBytes});
    if (run.device_pages[i] != nullptr) copies.push_back({page, run.device_pages[i], page_bytes});
  }
  TURBOKV_RETURN_IF_ERROR(lane.stream()->VerifyChecksums(run.layout, arrived, verdict));
  TURBOKV_RETURN_IF_ERROR(lane.stream()->CopyPages(copies));
  return lane.stream()->CopyToHost(lane.host_headers(), lane.device_headers(),
                                   arrived.size() * kPageHeaderBytes);
}

// Of pages that have arrived; their checksums are the verdict's.
absl::Status CheckPages(const DeviceRun& run, const Lane& lane, const DeviceVerdict& verdict) {
  const auto where = [&](size_t page) {
    return absl::StrCat("layer ", run.identity.layer, ", block ",
                        run.first_block + static_cast<int64_t>(page), ": ");
  };
  if (verdict.bad_page >= 0) {
    return absl::DataLossError(absl::StrCat(where(static_cast<size_t>(verdict.bad_page)),
                                            "the page is damaged, or not of the spec's codecs"));
  }
  PageIdentity expected = run.identity;
  for (size_t i = 0; i < run.device_pages.size(); ++i) {
    PageHeader header;
    std::memcpy(&header, lane.host_headers() + i * kPageHeaderBytes, sizeof(header));
    TURBOKV_RETURN_IF_ERROR(CheckPageIdentity(where(i), header, expected));
    expected.first_token += kPageTokens;
  }
  return absl::OkStatus();
}

}  // namespace

// The state of all runs. Lanes are held by callbacks, so that memory which the peer may still write
// is nobody else's.
class RunReceiver::Runs : public std::enable_shared_from_this<Runs> {
 public:
  explicit Runs(const RunReceiverOptions& options)
      : failed_(options.failed), metrics_(options.metrics), io_(options.lanes->io()) {}

  void Begin() {
    MutexLock lock(&mutex_);
    ++receiving_;
  }

  // A run that was not enqueued after all.
  absl::Status Refuse(const absl::Status& status) {
    End(&receiving_, status);
    return status;
  }

  // On the channel's thread.
  void OnReceived(const std::shared_ptr<Lane>& lane, const std::shared_ptr<const DeviceRun>& run,
                  const absl::Status& status) {
    if (absl::IsInternal(status)) lane->Abandon();
    {
      MutexLock lock(&mutex_);
      if (status.ok() && !stopped_ && first_error_.ok()) {
        --receiving_;
        ++writing_;
      } else {
        EndLocked(&receiving_, status);
        return;
      }
    }
    metrics_->CountNcclBytes(/*received=*/true, static_cast<int64_t>(run->run_bytes));
    const auto verdict = std::make_shared<DeviceVerdict>();
    const absl::Status enqueued = run->encoding == StoreEncoding::kRaw
                                      ? EnqueueEncode(*run, *lane, verdict.get())
                                      : EnqueuePages(*run, *lane, verdict.get());
    // Even after an error: what was enqueued before it still uses the lane.
    lane->stream()->Notify(
        [self = shared_from_this(), lane, run, verdict, enqueued](const absl::Status& done) {
          self->OnWritten(lane, run, *verdict, enqueued.ok() ? done : enqueued);
        });
  }

  absl::Status Wait() {
    std::optional<BadRun> bad;
    {
      MutexLock lock(&mutex_);
      while (receiving_ + writing_ > 0 && first_error_.ok()) changed_.wait(mutex_);
      if (!bad_run_) return first_error_;
      bad.swap(bad_run_);
    }
    const absl::Status described = Describe(*bad);
    MutexLock lock(&mutex_);
    first_error_ = described;
    return described;
  }

  // Nothing writes pages of the store from now on.
  void Stop() {
    std::optional<BadRun> bad;  // its lane goes after the lock
    MutexLock lock(&mutex_);
    stopped_ = true;
    while (writing_ > 0) changed_.wait(mutex_);
    bad.swap(bad_run_);
  }

  absl::Status first_error() const {
    MutexLock lock(&mutex_);
    return first_error_;
  }

 private:
  // Raw values of which some are not finite: kept until somebody who may wait looks for the first.
  struct BadRun {
    std::shared_ptr<Lane> lane;
    std::shared_ptr<const DeviceRun> run;
  };

  // On a thread of the device.
  void OnWritten(const std::shared_ptr<Lane>& lane, const std::shared_ptr<const DeviceRun>& run,
                 const DeviceVerdict& verdict, absl::Status status) {
    const bool raw = run->encoding == StoreEncoding::kRaw;
    if (status.ok() && !raw) status = CheckPages(*run, *lane, verdict);
    MutexLock lock(&mutex_);
    if (status.ok() && raw && verdict.bad_page >= 0) {
      status = absl::InvalidArgumentError(
          absl::StrCat("layer ", run->identity.layer, ": a value is not finite"));
      if (first_error_.ok() && !stopped_) bad_run_ = BadRun{lane, run};
    }
    EndLocked(&writing_, status);
  }

  void End(int* count, const absl::Status& status) {
    MutexLock lock(&mutex_);
    EndLocked(count, status);
  }
  void EndLocked(int* count, const absl::Status& status) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    --*count;
    if (first_error_.ok() && !status.ok()) {
      first_error_ = status;
      *failed_ = true;
    }
    changed_.notify_all();
  }

  // Names the first value of a run that is not finite.
  absl::Status Describe(const BadRun& bad) {
    const DeviceRun& run = *bad.run;
    const size_t tensor_bytes = RawTensorBytes(run) / run.device_pages.size();
    const PageShape& shape = run.layout.shape;
    std::vector<uint8_t> raw(2 * tensor_bytes);
    for (size_t i = 0; i < run.device_pages.size(); ++i) {
      const uint8_t* const k = bad.lane->device() + i * tensor_bytes;
      const DeviceRead reads[] = {
          {raw.data(), k, tensor_bytes},
          {raw.data() + tensor_bytes, k + RawTensorBytes(run), tensor_bytes}};
      TURBOKV_RETURN_IF_ERROR(io_->Read(reads));
      const KvView kv = NhdView(run.type, raw.data(), raw.data() + tensor_bytes, kPageTokens,
                                shape.kv_heads, shape.head_dim);
      const auto first_token = static_cast<int64_t>(run.identity.first_token + i * kPageTokens);
      const std::string where = cpu::DescribeNonFinite(kv, shape, first_token);
      if (where.empty()) continue;
      return absl::InvalidArgumentError(absl::StrCat("layer ", run.identity.layer, ": ", where));
    }
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", run.identity.layer, ": a value is not finite"));
  }

  const std::shared_ptr<std::atomic<bool>> failed_;
  Metrics* const metrics_;
  DevicePageIo* const io_;
  mutable Mutex mutex_;
  CondVar changed_;
  int receiving_ ABSL_GUARDED_BY(mutex_) = 0;
  int writing_ ABSL_GUARDED_BY(mutex_) = 0;  // pages of the store
  bool stopped_ ABSL_GUARDED_BY(mutex_) = false;
  absl::Status first_error_ ABSL_GUARDED_BY(mutex_);
  std::optional<BadRun> bad_run_ ABSL_GUARDED_BY(mutex_);
};

RunReceiver::RunReceiver(RunReceiverOptions options)
    : options_(std::move(options)), runs_(std::make_shared<Runs>(options_)) {}

RunReceiver::~RunReceiver() { runs_->Stop(); }

absl::StatusOr<std::shared_ptr<Lane>> RunReceiver::AwaitLane(uint64_t sequence) {
  const absl::Time deadline = absl::Now() + options_.patience;
  const auto stopped = [this] {
    if (options_.cancelled()) return absl::CancelledError("the client has gone");
    absl::Status error = runs_->first_error();
    return error.ok() ? options_.end.channel->status() : error;
  };
  TURBOKV_RETURN_IF_ERROR(options_.end.turns->Wait(sequence, deadline, stopped));
  return options_.lanes->Acquire(deadline, [&stopped] { return !stopped().ok(); });
}

absl::Status RunReceiver::Receive(uint64_t sequence, DeviceRun run) {
  announced_ = true;
  const absl::StatusOr<std::shared_ptr<Lane>> waited = AwaitLane(sequence);
  TURBOKV_RETURN_IF_ERROR(Error());  // the better reason
  TURBOKV_RETURN_IF_ERROR(waited.status());
  const std::shared_ptr<Lane>& lane = *waited;
  options_.end.turns->Pass(sequence);
  const auto shared_run = std::make_shared<const DeviceRun>(std::move(run));
  runs_->Begin();
  const absl::Status enqueued =
      options_.end.channel->Enqueue(sequence, NcclDirection::kReceive, PiecesOf(*shared_run, *lane),
                                    [runs = runs_, lane, shared_run](const absl::Status& status) {
                                      runs->OnReceived(lane, shared_run, status);
                                    });
  return enqueued.ok() ? enqueued : runs_->Refuse(enqueued);
}

absl::Status RunReceiver::Wait() { return runs_->Wait(); }

absl::Status RunReceiver::Error() {
  return runs_->first_error().ok() ? absl::OkStatus() : runs_->Wait();
}

void RunReceiver::AbortChannel(absl::string_view reason) {
  if (announced_) options_.end.channel->Abort(reason);
}

}  // namespace turbokv
