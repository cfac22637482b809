#include "examples/llama/tokenizer.h"

#include <queue>

#include "examples/llama/words.h"

namespace turbokv::examples {

// Merges one word's bytes: always the adjacent pair of lowest rank, the leftmost of equals. A
// linked list of tokens and a heap of candidate pairs keep long words cheap.
class WordMerger {
 public:
  WordMerger(const Tokenizer& tokenizer, std::string_view word) : tokenizer_(tokenizer) {
    const auto count = static_cast<int32_t>(word.size());
    nodes_.reserve(count);
    for (int32_t i = 0; i < count; ++i) {
      const int32_t token = tokenizer_.token_of_byte_[static_cast<uint8_t>(word[i])];
      nodes_.push_back({token, i - 1, i + 1 < count ? i + 1 : kNone});
    }
    for (int32_t i = 0; i < count; ++i) Consider(i);
  }

  void MergeInto(std::vector<int32_t>* token_ids) {
    while (!candidates_.empty()) {
      const Candidate best = candidates_.top();
      candidates_.pop();
      Node& left = nodes_[best.left];
      // A token that has changed since has a newer candidate, or none.
      if (left.next == kNone || left.token != best.left_token ||
          nodes_[left.next].token != best.right_token) {
        continue;
      }
      Node& right = nodes_[left.next];
      left.token = best.merged;
      right.token = kMerged;
      left.next = right.next;
      if (right.next != kNone) nodes_[right.next].previous = best.left;
      if (left.previous != kNone) Consider(left.previous);
      Consider(best.left);
    }
    for (int32_t i = 0; i != kNone; i = nodes_[i].next) token_ids->push_back(nodes_[i].token);
  }

 private:
  static constexpr int32_t kNone = -1;
  static constexpr int32_t kMerged = -2;

  struct Node {
    int32_t token, previous, next;
  };
  struct Candidate {
    int32_t rank, left, left_token, right_token, merged;
    bool operator<(const Candidate& other) const {  // the queue's top is the greatest
      return rank != other.rank ? rank > other.rank : left > other.left;
    }
  };

  void Consider(int32_t left) {
    const Node& node = nodes_[left];
    if (node.next == kNone) return;
    const int32_t right_token = nodes_[node.next].token;
    const uint64_t pair =
        uint64_t{static_cast<uint32_t>(node.token)} << 32 | static_cast<uint32_t>(right_token);
    const auto merge = tokenizer_.merges_.find(pair);
    if (merge == tokenizer_.merges_.end()) return;
    candidates_.push({merge->second.rank, left, node.token, right_token, merge->second.token});
  }

  const Tokenizer& tokenizer_;
  std::vector<Node> nodes_;
  std::priority_queue<Candidate> candidates_;
};

void Tokenizer::EncodeText(std::string_view text, std::vector<int32_t>* token_ids) const {
  for (std::string_view word : SplitWords(text)) WordMerger(*this, word).MergeInto(token_ids);
}

std::vector<int32_t> Tokenizer::Encode(std::string_view text) const {
  std::vector<int32_t> token_ids;
  while (!text.empty()) {
    size_t begin = text.size();
    const std::pair<std::string, int32_t>* first = nullptr;
    for (const auto& added : added_tokens_) {
      const size_t found = text.find(added.first);
      if (found < begin) {
        begin = found;
        first = &added;
      }
    }
    EncodeText(text.substr(0, begin), &token_ids);
    if (first == nullptr) break;
    token_ids.push_back(first->second);
    text.remove_prefix(begin + first->first.size());
  }
  return token_ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> token_ids) const {
  std::string text;
  for (int32_t id : token_ids) {
    if (id >= 0 && id < vocab()) text += bytes_of_token_[id];
  }
  return text;
}

}  // namespace turbokv::examples
