// The character classes that a byte-level tokenizer splits words by: \s, \p{L}, \p{N}, the rest.
#pragma once

#include <cstdint>

namespace turbokv::examples {

enum class CharacterClass : uint8_t { kSpace, kLetter, kNumber, kOther };

// By the general categories of Unicode 14.
CharacterClass ClassOf(uint32_t code_point);

}  // namespace turbokv::examples
