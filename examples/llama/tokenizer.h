// Byte-level byte-pair encoding, read from a Hugging Face tokenizer.json.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace turbokv::examples {

class Tokenizer {
 public:
  // Reads DIR/tokenizer.json. UNIMPLEMENTED: anything but BPE after a ByteLevel pre-tokenizer.
  // INVALID_ARGUMENT names what is malformed.
  static absl::StatusOr<Tokenizer> Load(const std::string& model_dir);

  // Any bytes. Added tokens such as <|end|> are recognised in the text.
  std::vector<int32_t> Encode(std::string_view text) const;

  // Unknown ids become nothing.
  std::string Decode(absl::Span<const int32_t> token_ids) const;

  int vocab() const { return static_cast<int>(bytes_of_token_.size()); }

 private:
  struct Merge {
    int32_t rank;
    int32_t token;
  };
  friend class TokenizerReader;
  friend class WordMerger;

  Tokenizer() = default;
  void EncodeText(std::string_view text, std::vector<int32_t>* token_ids) const;

  std::vector<std::string> bytes_of_token_;
  std::array<int32_t, 256> token_of_byte_{};
  std::unordered_map<uint64_t, Merge> merges_;  // by left token << 32 | right token
  std::vector<std::pair<std::string, int32_t>> added_tokens_;
};

}  // namespace turbokv::examples
