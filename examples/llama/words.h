// How GPT-2's byte-level tokenizers cut text into words before merging bytes:
//   's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
#pragma once

#include <string_view>
#include <vector>

namespace turbokv::examples {

// The words of `text`, which they cover without gaps. A byte that is no UTF-8 counts as a character
// of its own that is neither letter, number nor space.
std::vector<std::string_view> SplitWords(std::string_view text);

}  // namespace turbokv::examples
