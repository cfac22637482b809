#include "server/index/key_tagger.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace turbokv {
namespace {

constexpr size_t kCipherBlockBytes = 16;
// Keys of one pair of cipher calls: their halves stay in the first-level cache.
constexpr size_t kBatchKeys = 1024;
static_assert(sizeof(BlockTag) == kCipherBlockBytes);
static_assert(sizeof(Digest) == 2 * kCipherBlockBytes);

struct ContextDeleter {
  void operator()(EVP_CIPHER_CTX* context) const { EVP_CIPHER_CTX_free(context); }
};
using CipherContext = std::unique_ptr<EVP_CIPHER_CTX, ContextDeleter>;

absl::Status CryptoError(absl::string_view what) {
  return absl::InternalError(absl::StrCat("OpenSSL: ", what, " failed"));
}

absl::StatusOr<CipherContext> TenantCipher(const std::array<uint8_t, 32>& secret,
                                           absl::string_view tenant) {
  std::array<uint8_t, 32> key;
  unsigned int key_bytes = key.size();
  if (HMAC(EVP_sha256(), secret.data(), static_cast<int>(secret.size()),
           reinterpret_cast<const uint8_t*>(tenant.data()), tenant.size(), key.data(),
           &key_bytes) == nullptr) {
    return CryptoError("HMAC-SHA256");
  }
  CipherContext context(EVP_CIPHER_CTX_new());
  if (context == nullptr ||
      EVP_EncryptInit_ex(context.get(), EVP_aes_256_ecb(), nullptr, key.data(), nullptr) != 1 ||
      EVP_CIPHER_CTX_set_padding(context.get(), 0) != 1) {
    return CryptoError("AES-256 set-up");
  }
  return context;
}

absl::Status EncryptInPlace(EVP_CIPHER_CTX* context, absl::Span<BlockTag> blocks) {
  uint8_t* bytes = reinterpret_cast<uint8_t*>(blocks.data());
  const int size = static_cast<int>(blocks.size() * sizeof(BlockTag));
  int written = 0;
  if (EVP_EncryptUpdate(context, bytes, &written, bytes, size) != 1 || written != size) {
    return CryptoError("AES-256");
  }
  return absl::OkStatus();
}

BlockTag HalfOf(const Digest& key, size_t half) {
  BlockTag block;
  std::memcpy(&block, key.data() + half * kCipherBlockBytes, kCipherBlockBytes);
  return block;
}

}  // namespace

absl::StatusOr<KeyTagger> KeyTagger::Create() {
  KeyTagger tagger;
  if (RAND_bytes(tagger.secret_.data(), static_cast<int>(tagger.secret_.size())) != 1) {
    return CryptoError("random number generation");
  }
  return tagger;
}

absl::StatusOr<std::vector<BlockTag>> KeyTagger::Tags(absl::string_view tenant,
                                                      absl::Span<const Digest> keys) const {
  std::vector<BlockTag> tags(keys.size());
  if (keys.empty()) return tags;
  TURBOKV_ASSIGN_OR_RETURN(const CipherContext cipher, TenantCipher(secret_, tenant));
  for (size_t begin = 0; begin < keys.size(); begin += kBatchKeys) {
    const auto batch_keys = keys.subspan(begin, kBatchKeys);
    const auto batch = absl::MakeSpan(tags).subspan(begin, kBatchKeys);
    for (size_t i = 0; i < batch.size(); ++i) batch[i] = HalfOf(batch_keys[i], 0);
    TURBOKV_RETURN_IF_ERROR(EncryptInPlace(cipher.get(), batch));
    for (size_t i = 0; i < batch.size(); ++i) {
      const BlockTag second = HalfOf(batch_keys[i], 1);
      batch[i].low ^= second.low;
      batch[i].high ^= second.high;
    }
    TURBOKV_RETURN_IF_ERROR(EncryptInPlace(cipher.get(), batch));
  }
  return tags;
}

uint64_t KeyTagger::Group(absl::string_view tenant) const {
  const std::string text = absl::StrCat("group ", tenant);
  std::array<uint8_t, 32> digest{};
  // HMAC fails for want of memory only; then all tenants it failed for are one.
  HMAC(EVP_sha256(), secret_.data(), static_cast<int>(secret_.size()),
       reinterpret_cast<const uint8_t*>(text.data()), text.size(), digest.data(), nullptr);
  uint64_t group = 0;
  std::memcpy(&group, digest.data(), sizeof(group));
  return group | 1;
}

}  // namespace turbokv
