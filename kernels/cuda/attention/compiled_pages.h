// The pages kernels that are compiled ahead: of the usual policies' pairs of codecs.
#pragma once

#include <vector>

#include "kernels/format/codec_id.h"

namespace turbokv::cuda {

struct CompiledPages {
  Codec k;
  Codec v;
  int head_dim;
  int row_tiles;
  const void* function;
};

// Rows of eight that one warp works on at once, for so many rows of a KV head.
constexpr int PagesRowTiles(int head_dim, int rows) { return rows > 8 && head_dim <= 128 ? 2 : 1; }

// One pair each; compiled_pages.cc puts them together.
std::vector<CompiledPages> CompiledPagesInt5Int5();
std::vector<CompiledPages> CompiledPagesInt6Int6();
std::vector<CompiledPages> CompiledPagesTurbo4Turbo3();
std::vector<CompiledPages> CompiledPagesTurbo3Turbo3();
std::vector<CompiledPages> CompiledPagesBf16Bf16();

std::vector<CompiledPages> AllCompiledPages();

}  // namespace turbokv::cuda
