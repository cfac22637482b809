#include "server/ingest/page_encoder.h"

#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "kernels/cpu/codec.h"
#include "kernels/cpu/non_finite.h"
#include "server/ingest/distortion.h"

namespace turbokv {
namespace {

uint64_t SamplePeriod(double rate) {
  return rate > 0 ? static_cast<uint64_t>(std::llround(std::fmax(1.0, 1.0 / rate))) : 0;
}

}  // namespace

PageEncoder::PageEncoder(ThreadPool* pool, Metrics* metrics, double sample_rate)
    : pool_(pool), metrics_(metrics), sample_period_(SamplePeriod(sample_rate)) {}

absl::Status PageEncoder::Encode(Use use, const PageLayout& layout, const PageIdentity& identity,
                                 const KvView& kv, absl::Span<uint8_t> page) {
  const absl::Time start = absl::Now();
  ThreadPool* const helpers = HelpersFor(++in_flight_);
  const absl::Status status = cpu::EncodePage(layout, identity, kv, page, helpers);
  --in_flight_;
  if (!status.ok()) {
    const std::string where =
        cpu::DescribeNonFinite(kv, layout.shape, static_cast<int64_t>(identity.first_token));
    return absl::Status(status.code(),
                        absl::StrCat("layer ", identity.layer, ": ",
                                     where.empty() ? std::string(status.message()) : where));
  }
  metrics_->ObserveLatency(Latency::kEncodePage, absl::Now() - start);
  if (use == Use::kBlock && NextIsSampled()) Sample(kv, page);
  return absl::OkStatus();
}

ThreadPool* PageEncoder::HelpersFor(int pages_in_flight) const {
  return pool_->size() > 2 * pages_in_flight ? pool_ : nullptr;
}

bool PageEncoder::NextIsSampled() {
  return sample_period_ > 0 && pages_.fetch_add(1, std::memory_order_relaxed) % sample_period_ == 0;
}

void PageEncoder::Sample(const KvView& kv, absl::Span<const uint8_t> page) {
  const absl::StatusOr<PageView> view = ParsePage(page);
  if (!view.ok()) return;
  MutexLock lock(&sampling_);
  std::vector<float> scratch;
  for (const PageTensor tensor : {PageTensor::kK, PageTensor::kV}) {
    const PageShape& shape = view->layout.shape;
    metrics_->ObserveDistortion(tensor, tensor == PageTensor::kK ? shape.k_codec : shape.v_codec,
                                RelativeMse(tensor, kv, *view, &scratch));
  }
}

}  // namespace turbokv
