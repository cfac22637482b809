#include "client/nccl/nccl_api.h"

#include <cstring>

#include "tests/unit/client/nccl/nccl_testing.h"

namespace turbokv {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(NcclApiTest, LoadsALibraryThatIsNewEnough) {
  const absl::StatusOr<std::shared_ptr<const NcclApi>> api =
      NcclApi::Load(nccl_testing::FakeLibrary());
  ASSERT_TRUE(api.ok()) << api.status();
  EXPECT_EQ((*api)->version(), 22809);
  EXPECT_EQ((*api)->version_text(), "2.28.9");
  EXPECT_EQ((*api)->path(), nccl_testing::FakeLibrary());
}

TEST(NcclApiTest, TakesThePathFromTheEnvironment) {
  setenv(kNcclLibraryVariable, nccl_testing::FakeLibrary().c_str(), 1);
  const auto api = NcclApi::Load();
  unsetenv(kNcclLibraryVariable);
  ASSERT_TRUE(api.ok()) << api.status();
  EXPECT_EQ((*api)->path(), nccl_testing::FakeLibrary());
}

TEST(NcclApiTest, SaysThatTheLibraryIsMissing) {
  const absl::Status status = NcclApi::Load("/no/such/libnccl.so.2").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("/no/such/libnccl.so.2"), HasSubstr("2.18.0"),
                    HasSubstr("TURBOKV_NCCL_LIBRARY")));
}

TEST(NcclApiTest, SaysThatTheLibraryIsTooOld) {
  setenv("FAKE_NCCL_VERSION", "21602", 1);
  const absl::Status status = NcclApi::Load(nccl_testing::FakeLibrary()).status();
  unsetenv("FAKE_NCCL_VERSION");
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("libfake_nccl.so"), HasSubstr("2.16.2"), HasSubstr("2.18.0")));
}

TEST(NcclApiTest, SaysThatALibraryIsNotNccl) {
  const absl::Status status = NcclApi::Load("libm.so.6").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("no function ncclGetVersion"));
}

TEST(NcclApiTest, MakesEveryIdOnce) {
  const NcclUniqueId one = nccl_testing::NewId();
  const NcclUniqueId two = nccl_testing::NewId();
  EXPECT_NE(std::memcmp(&one, &two, sizeof(one)), 0);
}

TEST(NcclApiTest, TellsPeersFromOwnErrors) {
  const auto api = nccl_testing::FakeApi();
  EXPECT_TRUE(api->ToStatus(kNcclSuccess, "ncclSend", nullptr).ok());
  EXPECT_EQ(api->ToStatus(kNcclRemoteError, "ncclSend", nullptr).code(),
            absl::StatusCode::kUnavailable);
  const absl::Status own = api->ToStatus(kNcclInvalidUsage, "ncclSend", nullptr);
  EXPECT_EQ(own.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(own.message()), HasSubstr("ncclSend: ncclInvalidUsage"));
}

}  // namespace
}  // namespace turbokv
