#include "base/sha256.h"

#include <openssl/evp.h>

#include "base/check.h"

namespace outrider {
namespace {

// Fetched once: OpenSSL 3 looks an algorithm up by name whenever it is not given a fetched one.
const EVP_MD* sha256() {
    static const EVP_MD* const md = EVP_MD_fetch(nullptr, "SHA256", nullptr);
    require(md != nullptr, "OpenSSL must have SHA-256");
    return md;
}

EVP_MD_CTX* context_of(void* context) {
    return static_cast<EVP_MD_CTX*>(context);
}

}  // namespace

void Sha256::Free::operator()(void* context) const {
    EVP_MD_CTX_free(context_of(context));
}

Sha256::Sha256() : context_(EVP_MD_CTX_new()) {
    require(context_ != nullptr, "there must be memory for a SHA-256 context");
    require(EVP_DigestInit_ex(context_of(context_.get()), sha256(), nullptr) == 1, "SHA-256 must start");
}

void Sha256::add(std::string_view bytes) {
    require(context_ != nullptr, "nothing follows Sha256::finish()");
    require(EVP_DigestUpdate(context_of(context_.get()), bytes.data(), bytes.size()) == 1,
            "SHA-256 must take bytes");
}

Sha256::Digest Sha256::finish() {
    require(context_ != nullptr, "Sha256::finish() is called once");
    Digest digest;
    require(EVP_DigestFinal_ex(context_of(context_.get()), digest.data(), nullptr) == 1, "SHA-256 must end");
    context_.reset();
    return digest;
}

}  // namespace outrider
