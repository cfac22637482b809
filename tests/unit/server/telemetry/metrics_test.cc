#include "server/telemetry/metrics.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/index/block_cache.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// The body of GET /metrics on the loopback port.
std::string Scrape(int port) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    close(fd);
    return "";
  }
  const std::string request = "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n";
  EXPECT_EQ(write(fd, request.data(), request.size()), static_cast<ssize_t>(request.size()));
  std::string response;
  char buffer[4096];
  for (ssize_t size = 0; (size = read(fd, buffer, sizeof(buffer))) > 0;) {
    response.append(buffer, static_cast<size_t>(size));
  }
  close(fd);
  const size_t body = response.find("\r\n\r\n");
  return body == std::string::npos ? "" : response.substr(body + 4);
}

// One server for all tests, since stopping one takes civetweb two seconds: every test counts what
// no other test does.
class MetricsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const absl::Status status = metrics_.Serve("127.0.0.1:0");
    ASSERT_TRUE(status.ok()) << status;
  }
  // The value of a series as it is written, e.g. `turbokv_blocks` or `x{a="b"}`.
  double Value(const std::string& series) {
    const std::string text = Scrape(metrics_.port());
    for (const absl::string_view line : absl::StrSplit(text, '\n')) {
      double value = 0;
      if (line.substr(0, series.size() + 1) == series + " " &&
          absl::SimpleAtod(line.substr(series.size() + 1), &value)) {
        return value;
      }
    }
    ADD_FAILURE() << "no series " << series;
    return -1;
  }

  static Metrics metrics_;
};

Metrics MetricsTest::metrics_;

TEST_F(MetricsTest, CountersShowWhatWasCounted) {
  metrics_.CountStoredBytes(1000);
  metrics_.CountFetchedBytes(300);
  metrics_.CountLookup(256, 128, 2000, 1000);
  metrics_.CountEviction(3, 3000);
  metrics_.CountDataLoss();
  metrics_.AddActiveStores(2);
  metrics_.AddActiveStores(-1);
  EXPECT_EQ(Value("turbokv_received_bytes_total"), 1000);
  EXPECT_EQ(Value("turbokv_fetched_bytes_total"), 300);
  EXPECT_EQ(Value("turbokv_hit_tokens_total"), 256);
  EXPECT_EQ(Value("turbokv_missed_tokens_total"), 128);
  EXPECT_EQ(Value("turbokv_hit_bytes_total"), 2000);
  EXPECT_EQ(Value("turbokv_missed_bytes_total"), 1000);
  EXPECT_EQ(Value("turbokv_evicted_blocks_total"), 3);
  EXPECT_EQ(Value("turbokv_evicted_bytes_total"), 3000);
  EXPECT_EQ(Value("turbokv_damaged_pages_total"), 1);
  EXPECT_EQ(Value("turbokv_active_stores"), 1);
  EXPECT_EQ(metrics_.hit_tokens(), 256);
  EXPECT_EQ(metrics_.missed_tokens(), 128);
  EXPECT_EQ(metrics_.active_stores(), 1);
}

TEST_F(MetricsTest, CodecsOfKAndVAreCountedApart) {
  const int64_t raw_bytes_before = metrics_.raw_bytes();
  const int64_t kept_bytes_before = metrics_.kept_bytes();
  metrics_.CountPage(PageTensor::kK, Codec::kInt5, 1600, 400);
  metrics_.CountPage(PageTensor::kK, Codec::kInt5, 1600, 400);
  metrics_.CountPage(PageTensor::kV, Codec::kTurbo3, 1600, 320);
  metrics_.ObserveDistortion(PageTensor::kV, Codec::kTurbo3, 0.034);
  EXPECT_EQ(Value("turbokv_pages_total{tensor=\"k\",codec=\"int5\"}"), 2);
  EXPECT_EQ(Value("turbokv_raw_bytes_total{tensor=\"k\",codec=\"int5\"}"), 3200);
  EXPECT_EQ(Value("turbokv_kept_bytes_total{tensor=\"v\",codec=\"turbo3\"}"), 320);
  EXPECT_EQ(Value("turbokv_compression_ratio{tensor=\"v\",codec=\"turbo3\"}"), 5);
  EXPECT_EQ(Value("turbokv_compression_ratio{tensor=\"k\",codec=\"turbo3\"}"), 0);
  EXPECT_EQ(Value("turbokv_page_relative_mse_count{tensor=\"v\",codec=\"turbo3\"}"), 1);
  EXPECT_EQ(Value("turbokv_page_relative_mse_sum{tensor=\"v\",codec=\"turbo3\"}"), 0.034);
  const CodecTotals totals = metrics_.Totals(PageTensor::kV, Codec::kTurbo3);
  EXPECT_EQ(totals.pages, 1);
  EXPECT_EQ(totals.raw_bytes, 1600);
  EXPECT_EQ(totals.kept_bytes, 320);
  EXPECT_EQ(totals.sampled_pages, 1);
  EXPECT_EQ(totals.relative_mse_sum, 0.034);
  EXPECT_EQ(metrics_.raw_bytes() - raw_bytes_before, 4800);
  EXPECT_EQ(metrics_.kept_bytes() - kept_bytes_before, 1120);
}

TEST_F(MetricsTest, LatenciesFallIntoTheirBuckets) {
  const std::string name = "turbokv_lookup_duration_seconds";
  metrics_.ObserveLatency(Latency::kLookup, absl::Microseconds(10));
  metrics_.ObserveLatency(Latency::kLookup, absl::Microseconds(11));
  metrics_.ObserveLatency(Latency::kLookup, absl::Seconds(11));
  EXPECT_EQ(Value(name + "_bucket{le=\"1e-05\"}"), 1);
  EXPECT_EQ(Value(name + "_bucket{le=\"2.5e-05\"}"), 2);
  EXPECT_EQ(Value(name + "_bucket{le=\"10\"}"), 2);
  EXPECT_EQ(Value(name + "_bucket{le=\"+Inf\"}"), 3);
  EXPECT_EQ(Value(name + "_count"), 3);
  EXPECT_NEAR(Value(name + "_sum"), 11.000021, 1e-9);
  EXPECT_EQ(Value("turbokv_fetch_duration_seconds_count"), 0);
}

TEST_F(MetricsTest, CallsAreCountedInABoundedSetOfSeries) {
  metrics_.CountRpc("Lookup", absl::StatusCode::kOk);
  metrics_.CountRpc("Fetch", absl::StatusCode::kDataLoss);
  metrics_.CountRpc("SomethingElse", absl::StatusCode::kUnimplemented);
  metrics_.CountRpc("AndAnother", static_cast<absl::StatusCode>(77));
  EXPECT_EQ(Value("turbokv_rpcs_total{method=\"Lookup\",code=\"OK\"}"), 1);
  EXPECT_EQ(Value("turbokv_rpcs_total{method=\"Fetch\",code=\"DATA_LOSS\"}"), 1);
  EXPECT_EQ(Value("turbokv_rpcs_total{method=\"other\",code=\"UNIMPLEMENTED\"}"), 1);
  EXPECT_EQ(Value("turbokv_rpcs_total{method=\"other\",code=\"UNKNOWN\"}"), 1);
  EXPECT_EQ(Value("turbokv_rpcs_total{method=\"Store\",code=\"OK\"}"), 0);
}

TEST_F(MetricsTest, UsageIsReadAtTheScrape) {
  CacheUsage usage;
  metrics_.SetUsageSource([&usage] { return usage; });
  EXPECT_EQ(Value("turbokv_blocks"), 0);
  usage = {100, 60, 80, 7, 2, 3, 5, 4, 9, 1234};
  EXPECT_EQ(Value("turbokv_pool_budget_bytes"), 100);
  EXPECT_EQ(Value("turbokv_pool_used_bytes"), 60);
  EXPECT_EQ(Value("turbokv_pool_reserved_bytes"), 80);
  EXPECT_EQ(Value("turbokv_blocks"), 7);
  EXPECT_EQ(Value("turbokv_tails"), 2);
  EXPECT_EQ(Value("turbokv_leases"), 3);
  EXPECT_EQ(Value("turbokv_leased_blocks"), 5);
  EXPECT_EQ(Value("turbokv_pending_entries"), 4);
  EXPECT_EQ(Value("turbokv_index_bytes"), 1234);
  metrics_.SetUsageSource(nullptr);
}

TEST_F(MetricsTest, APortInUseIsACleanError) {
  Metrics second;
  const std::string address = absl::StrCat("127.0.0.1:", metrics_.port());
  const absl::Status status = second.Serve(address);
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr(address), HasSubstr("in use")));
  EXPECT_TRUE(second.Serve("127.0.0.1:0").ok());
}

TEST_F(MetricsTest, ThreadsLoseNoCount) {
  std::vector<std::thread> threads;
  constexpr int kCounts = 5000;
  for (int thread = 0; thread < 4; ++thread) {
    threads.emplace_back([] {
      for (int i = 0; i < kCounts; ++i) {
        metrics_.CountPage(PageTensor::kK, Codec::kInt6, 4, 1);
        metrics_.ObserveLatency(Latency::kStore, absl::Seconds(1));
      }
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_FALSE(Scrape(metrics_.port()).empty());
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(metrics_.Totals(PageTensor::kK, Codec::kInt6).pages, 4 * kCounts);
  EXPECT_EQ(Value("turbokv_store_duration_seconds_sum"), 4 * kCounts);
}

struct Family {
  std::string type;
  std::set<std::string> labels;
  bool operator==(const Family&) const = default;
};

void PrintTo(const Family& family, std::ostream* out) {
  *out << family.type << " {";
  for (const std::string& label : family.labels) *out << label << " ";
  *out << "}";
}

// Families of an exposition, by name; `le` and `quantile` are not labels of ours.
std::map<std::string, Family> FamiliesOf(const std::string& text) {
  std::map<std::string, Family> families;
  std::string name;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ');
    if (words.size() == 4 && words[1] == "TYPE") {
      name = words[2];
      families[name].type = words[3];
    }
    const size_t open = line.find('{');
    if (line.empty() || line[0] == '#' || open == absl::string_view::npos) continue;
    const absl::string_view labels = line.substr(open + 1, line.rfind('}') - open - 1);
    for (const absl::string_view label : absl::StrSplit(labels, ',')) {
      const std::string label_name(label.substr(0, label.find('=')));
      if (label_name != "le" && label_name != "quantile") families[name].labels.insert(label_name);
    }
  }
  return families;
}

// Rows of docs/metrics.md: | `name` | type | `label`, `label` | meaning | `PromQL` |
std::map<std::string, Family> FamiliesOfDoc() {
  std::ifstream doc(TURBOKV_SOURCE_DIR "/docs/metrics.md");
  EXPECT_TRUE(doc) << "docs/metrics.md is missing";
  std::map<std::string, Family> families;
  for (std::string line; std::getline(doc, line);) {
    if (line.rfind("| `", 0) != 0) continue;
    const std::vector<std::string> cells = absl::StrSplit(line, absl::MaxSplits(" | ", 4));
    if (cells.size() != 5) {
      ADD_FAILURE() << "expected five columns: " << line;
      continue;
    }
    const std::vector<std::string> quoted = absl::StrSplit(cells[0], '`');
    Family& family = families[quoted[1]];
    family.type = cells[1];
    const std::vector<std::string> labels = absl::StrSplit(cells[2], '`');
    for (size_t i = 1; i < labels.size(); i += 2) family.labels.insert(labels[i]);
    EXPECT_GT(cells[3].size(), 10) << line;
    EXPECT_THAT(cells[4], HasSubstr(quoted[1])) << "the example is about another metric";
  }
  return families;
}

TEST_F(MetricsTest, TheDocumentListsExactlyWhatAScrapeShows) {
  Scrape(metrics_.port());  // the exposer's own summary appears with the first scrape
  const std::map<std::string, Family> scraped = FamiliesOf(Scrape(metrics_.port()));
  EXPECT_GT(scraped.size(), 25);
  EXPECT_EQ(FamiliesOfDoc(), scraped);
}

TEST_F(MetricsTest, PromtoolAccepts) {
  if (std::system("promtool --version > /dev/null 2>&1") != 0) {
    GTEST_SKIP() << "promtool is not on PATH (Debian package prometheus)";
  }
  metrics_.CountPage(PageTensor::kK, Codec::kInt8, 1600, 400);
  metrics_.ObserveLatency(Latency::kEncodePage, absl::Milliseconds(3));
  const std::string path = absl::StrCat(::testing::TempDir(), "/turbokv_metrics.", getpid());
  {
    // The exposer's own three metrics are prometheus-cpp's; one of them lacks a unit.
    std::ofstream file(path);
    std::istringstream text(Scrape(metrics_.port()));
    for (std::string line; std::getline(text, line);) {
      if (line.find("exposer_") == std::string::npos) file << line << "\n";
    }
  }
  const std::string command = absl::StrCat("promtool check metrics < ", path, " 2>&1");
  FILE* const pipe = popen(command.c_str(), "r");
  ASSERT_NE(pipe, nullptr);
  std::string output;
  char buffer[1024];
  while (fgets(buffer, sizeof(buffer), pipe) != nullptr) output += buffer;
  EXPECT_EQ(pclose(pipe), 0) << output;
  EXPECT_EQ(output, "");
  unlink(path.c_str());
}

}  // namespace
}  // namespace turbokv
