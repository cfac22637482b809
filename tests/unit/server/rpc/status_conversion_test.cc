#include "server/rpc/status_conversion.h"

#include "client/wire/status_conversion.h"
#include "gtest/gtest.h"

namespace turbokv {
namespace {

TEST(StatusConversionTest, EveryCodeArrivesAsItself) {
  for (int code = 1; code <= 16; ++code) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "what happened");
    const grpc::Status sent = ToGrpcStatus(status);
    EXPECT_EQ(static_cast<int>(sent.error_code()), code);
    EXPECT_EQ(sent.error_message(), "what happened");
    const absl::Status received = FromGrpcStatus(sent, "lookup at host");
    EXPECT_EQ(received.code(), status.code());
    EXPECT_EQ(received.message(), "lookup at host: what happened");
  }
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK, "lookup").ok());
}

TEST(StatusConversionTest, CodesThatNobodyKnowsAreUnknown) {
  EXPECT_EQ(ToGrpcStatus(absl::Status(static_cast<absl::StatusCode>(77), "x")).error_code(),
            grpc::StatusCode::UNKNOWN);
}

}  // namespace
}  // namespace turbokv
