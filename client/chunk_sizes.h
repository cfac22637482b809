// How large the chunks of bulk streams may be.
#pragma once

#include <cstddef>

namespace turbokv {

inline constexpr size_t kMinChunkBytes = size_t{64} << 10;
inline constexpr size_t kDefaultChunkBytes = size_t{256} << 10;
inline constexpr size_t kMaxChunkBytes = size_t{1} << 20;

}  // namespace turbokv
