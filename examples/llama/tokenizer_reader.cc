// Tokenizer::Load: untrusted JSON into checked tables.
#include <optional>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "examples/llama/json_fields.h"
#include "examples/llama/tokenizer.h"

namespace turbokv::examples {
namespace {

constexpr int64_t kMaxTokens = 1 << 24;

std::string Utf8(uint32_t code_point) {
  if (code_point < 0x80) return std::string(1, static_cast<char>(code_point));
  return {static_cast<char>(0xc0 | code_point >> 6), static_cast<char>(0x80 | (code_point & 0x3f))};
}

// GPT-2's printable stand-ins for bytes, as UTF-8: printable Latin-1 stands for itself, every other
// byte for the next code point from U+0100 on.
std::array<std::string, 256> ByteCharacters() {
  std::array<std::string, 256> characters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
                           (byte >= 0xae && byte <= 0xff);
    characters[byte] = Utf8(printable ? byte : next++);
  }
  return characters;
}

}  // namespace

class TokenizerReader {
 public:
  explicit TokenizerReader(std::string path) : path_(std::move(path)) {
    const std::array<std::string, 256> characters = ByteCharacters();
    for (int byte = 0; byte < 256; ++byte) byte_of_character_[characters[byte]] = byte;
  }

  absl::StatusOr<Tokenizer> Read() {
    TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonObject(path_));
    const JsonFields file(&json, path_);
    TURBOKV_ASSIGN_OR_RETURN(const JsonFields model, file.Object("model"));
    TURBOKV_ASSIGN_OR_RETURN(const JsonFields splitter, file.Object("pre_tokenizer"));
    TURBOKV_ASSIGN_OR_RETURN(const std::string kind, model.StringOr("type", "BPE"));
    TURBOKV_ASSIGN_OR_RETURN(const std::string split, splitter.StringOr("type", ""));
    TURBOKV_ASSIGN_OR_RETURN(const bool prefix, splitter.BoolOr("add_prefix_space", false));
    TURBOKV_ASSIGN_OR_RETURN(const bool regex, splitter.BoolOr("use_regex", true));
    if (kind != "BPE" || split != "ByteLevel" || prefix || !regex || file.Has("normalizer")) {
      return absl::UnimplementedError(
          absl::StrCat(path_,
                       ": only BPE after a ByteLevel pre-tokenizer (its regex, no prefix space, no "
                       "normalizer) is implemented; this is ",
                       kind, " after ", split));
    }
    TURBOKV_RETURN_IF_ERROR(ReadAddedTokens(file));
    TURBOKV_RETURN_IF_ERROR(ReadVocabulary(model));
    TURBOKV_RETURN_IF_ERROR(ReadMerges(model));
    return std::move(tokenizer_);
  }

 private:
  absl::Status Malformed(const std::string& what, const nlohmann::json& value) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ": ", what, ": ", value.dump(-1, ' ', true).substr(0, 80)));
  }

  // The bytes that a vocabulary entry stands for; nothing if a character stands for none.
  std::optional<std::string> BytesOf(const std::string& entry) const {
    std::string bytes;
    for (size_t i = 0; i < entry.size();) {
      const size_t width = static_cast<uint8_t>(entry[i]) < 0x80 ? 1 : 2;
      const auto found = byte_of_character_.find(entry.substr(i, width));
      if (found == byte_of_character_.end()) return std::nullopt;
      bytes += static_cast<char>(found->second);
      i += width;
    }
    return bytes;
  }

  absl::Status ReadAddedTokens(const JsonFields& file) {
    if (!file.Has("added_tokens")) return absl::OkStatus();
    TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* list, file.Value("added_tokens"));
    if (!list->is_array()) return Malformed("added_tokens is not a list", *list);
    for (const nlohmann::json& item : *list) {
      if (!item.is_object()) return Malformed("added token", item);
      const JsonFields fields(&item, absl::StrCat(path_, ": added token"));
      TURBOKV_ASSIGN_OR_RETURN(const int64_t id, fields.Integer("id", 0, kMaxTokens));
      TURBOKV_ASSIGN_OR_RETURN(const std::string content, fields.StringOr("content", ""));
      if (content.empty()) return Malformed("added token without content", item);
      tokenizer_.added_tokens_.emplace_back(content, static_cast<int32_t>(id));
      Place(static_cast<int32_t>(id), content);
    }
    return absl::OkStatus();
  }

  void Place(int32_t id, const std::string& bytes) {
    if (id >= tokenizer_.vocab()) tokenizer_.bytes_of_token_.resize(id + 1);
    tokenizer_.bytes_of_token_[id] = bytes;
  }

  bool IsAdded(const std::string& entry) const {
    for (const auto& added : tokenizer_.added_tokens_) {
      if (added.first == entry) return true;
    }
    return false;
  }

  absl::Status ReadVocabulary(const JsonFields& model) {
    TURBOKV_ASSIGN_OR_RETURN(const JsonFields vocabulary, model.Object("vocab"));
    for (const auto& [entry, value] : vocabulary.json().items()) {
      TURBOKV_ASSIGN_OR_RETURN(const int64_t id, vocabulary.Integer(entry, 0, kMaxTokens));
      token_of_entry_[entry] = static_cast<int32_t>(id);
      if (IsAdded(entry)) continue;
      const std::optional<std::string> bytes = BytesOf(entry);
      if (!bytes) return Malformed("a vocabulary entry is not byte-level", entry);
      Place(static_cast<int32_t>(id), *bytes);
    }
    for (const auto& [character, byte] : byte_of_character_) {
      const auto found = token_of_entry_.find(character);
      if (found == token_of_entry_.end()) {
        return absl::InvalidArgumentError(
            absl::StrCat(path_, ": the vocabulary lacks a token for byte ", byte));
      }
      tokenizer_.token_of_byte_[byte] = found->second;
    }
    return absl::OkStatus();
  }

  // "left right", or ["left", "right"] in newer files.
  std::optional<std::pair<std::string, std::string>> Pair(const nlohmann::json& merge) const {
    if (merge.is_string()) {
      const std::string text = merge.get<std::string>();
      const size_t space = text.find(' ');
      if (space == std::string::npos) return std::nullopt;
      return std::make_pair(text.substr(0, space), text.substr(space + 1));
    }
    if (!merge.is_array() || merge.size() != 2 || !merge[0].is_string() || !merge[1].is_string()) {
      return std::nullopt;
    }
    return std::make_pair(merge[0].get<std::string>(), merge[1].get<std::string>());
  }

  absl::Status ReadMerges(const JsonFields& model) {
    TURBOKV_ASSIGN_OR_RETURN(const nlohmann::json* merges, model.Value("merges"));
    if (!merges->is_array()) return Malformed("merges is not a list", *merges);
    int32_t rank = 0;
    for (const nlohmann::json& merge : *merges) {
      const auto pair = Pair(merge);
      if (!pair) return Malformed("a merge is not a pair", merge);
      const auto left = token_of_entry_.find(pair->first);
      const auto right = token_of_entry_.find(pair->second);
      const auto merged = token_of_entry_.find(pair->first + pair->second);
      const auto end = token_of_entry_.end();
      if (left == end || right == end || merged == end) {
        return Malformed("a merge names a token that the vocabulary lacks", merge);
      }
      const uint64_t key = uint64_t{static_cast<uint32_t>(left->second)} << 32 |
                           static_cast<uint32_t>(right->second);
      tokenizer_.merges_.emplace(key, Tokenizer::Merge{rank++, merged->second});
    }
    return absl::OkStatus();
  }

  const std::string path_;
  std::unordered_map<std::string, int> byte_of_character_;
  std::unordered_map<std::string, int32_t> token_of_entry_;
  Tokenizer tokenizer_;
};

absl::StatusOr<Tokenizer> Tokenizer::Load(const std::string& model_dir) {
  return TokenizerReader(model_dir + "/tokenizer.json").Read();
}

}  // namespace turbokv::examples
