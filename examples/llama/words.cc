#include "examples/llama/words.h"

#include <cstddef>
#include <cstdint>

#include "examples/llama/unicode_classes.h"

namespace turbokv::examples {
namespace {

struct Character {
  size_t bytes = 1;
  CharacterClass character_class = CharacterClass::kOther;
};

// Precondition: `text` is not empty.
Character FirstCharacter(std::string_view text) {
  const auto lead = static_cast<uint8_t>(text[0]);
  if (lead < 0x80) return {1, ClassOf(lead)};
  const size_t bytes = lead >= 0xf0 && lead < 0xf8 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc0 ? 2 : 0;
  if (bytes == 0 || lead >= 0xf8 || text.size() < bytes) return {};
  uint32_t code_point = lead & (0xff >> (bytes + 1));
  for (size_t i = 1; i < bytes; ++i) {
    const auto next = static_cast<uint8_t>(text[i]);
    if ((next & 0xc0) != 0x80) return {};
    code_point = code_point << 6 | (next & 0x3f);
  }
  return {bytes, ClassOf(code_point)};
}

// Bytes of the characters of one class that `text` begins with. `last_bytes`: of the last of them.
size_t RunBytes(std::string_view text, CharacterClass wanted, size_t* last_bytes) {
  size_t end = 0;
  while (end < text.size()) {
    const Character character = FirstCharacter(text.substr(end));
    if (character.character_class != wanted) break;
    *last_bytes = character.bytes;
    end += character.bytes;
  }
  return end;
}

size_t ContractionBytes(std::string_view text) {
  for (std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.substr(0, ending.size()) == ending) return ending.size();
  }
  return 0;
}

size_t FirstWordBytes(std::string_view text) {
  if (const size_t bytes = ContractionBytes(text); bytes > 0) return bytes;
  size_t last_bytes = 0;
  const size_t space = text[0] == ' ' && text.size() > 1 ? 1 : 0;
  const CharacterClass next = FirstCharacter(text.substr(space)).character_class;
  if (next != CharacterClass::kSpace) {
    return space + RunBytes(text.substr(space), next, &last_bytes);
  }
  // White space up to the end of the text, or up to its last character: that one belongs to the
  // next word when it is a space, and is a word of its own otherwise.
  const size_t run = RunBytes(text, CharacterClass::kSpace, &last_bytes);
  return run == text.size() || run == last_bytes ? run : run - last_bytes;
}

}  // namespace

std::vector<std::string_view> SplitWords(std::string_view text) {
  std::vector<std::string_view> words;
  while (!text.empty()) {
    const size_t bytes = FirstWordBytes(text);
    words.push_back(text.substr(0, bytes));
    text.remove_prefix(bytes);
  }
  return words;
}

}  // namespace turbokv::examples
