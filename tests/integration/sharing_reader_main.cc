// A worker that dies in the middle of a read in place, when its test kills it:
//
//   sharing_reader PORT
//
// Looks a prompt up that the test has stored, begins to read it, says so, and stays.
#include <unistd.h>

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "tests/integration/service_fixture.h"

namespace turbokv::testing {
namespace {

int Main(int argc, char** argv) {
  if (argc != 2) return 2;
  ChannelOptions options;
  options.address = absl::StrCat("127.0.0.1:", argv[1]);
  options.transport = Road::kShm;
  const auto channel = CacheChannel::Connect(options);
  if (!channel.ok()) return 3;
  const CacheSpec spec = TestSpec();
  DecodeReader reader(*channel, Resolve(spec));
  LookupOptions lookup;
  lookup.lease = absl::Minutes(10);
  const Prompt prompt(spec, 300, 1);
  const auto match = reader.Lookup(prompt.token_ids(), lookup);
  if (!match.ok() || match->blocks != 2) return 4;
  reader
      .Fetch({},
             [](const FetchedLayer&) {
               std::puts("reading");
               std::fflush(stdout);
               pause();
               return absl::OkStatus();
             })
      .IgnoreError();
  return 5;
}

}  // namespace
}  // namespace turbokv::testing

int main(int argc, char** argv) { return turbokv::testing::Main(argc, argv); }
