// Short-lived text of one exchange: taken piece by piece, let go all at once. The first block is kept for the next user.
#pragma once

#include <cstring>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <vector>

namespace outrider {

class Arena {
  public:
    static constexpr std::size_t kBlock = 768;

    char* take(std::size_t size) {
        if (size > left_) return take_slow(size);
        char* out = next_;
        next_ += size;
        left_ -= size;
        return out;
    }
    std::string_view copy(std::string_view s) { return join({s}); }
    std::string_view join(std::initializer_list<std::string_view> parts) {
        std::size_t total = 0;
        for (const std::string_view p : parts)
            total += p.size();
        char* const out = take(total);
        char* at = out;
        for (const std::string_view p : parts) {
            std::memcpy(at, p.data(), p.size());
            at += p.size();
        }
        return {out, total};
    }
    // Everything taken becomes invalid.
    void reset() {
        if (!extra_.empty()) extra_.clear();
        next_ = first_.get();
        left_ = first_ ? kBlock : 0;
    }

  private:
    char* take_slow(std::size_t size) {
        if (!first_) {
            first_ = std::make_unique_for_overwrite<char[]>(kBlock);
            next_ = first_.get();
            left_ = kBlock;
            if (size <= left_) return take(size);
        }
        extra_.push_back(std::make_unique_for_overwrite<char[]>(size));
        return extra_.back().get();
    }

    std::unique_ptr<char[]> first_;
    std::vector<std::unique_ptr<char[]>> extra_;
    char* next_ = nullptr;
    std::size_t left_ = 0;
};

}  // namespace outrider
