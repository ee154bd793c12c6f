// Which endpoints a balancer may choose now, as a view that is two words wide and never allocates.
//
// It does not own what it looks at: the bitmap or function must outlive the call it is passed to.
// Passing a lambda written in the argument list is fine; keeping a Usable is not. The common case,
// everything usable, is one comparison with null and no indirect call.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <type_traits>

namespace outrider::policy {

class Usable {
  public:
    // Every endpoint may be chosen.
    static Usable all() { return Usable(nullptr, nullptr); }

    // Endpoint i may be chosen when bit i % 64 of words[i / 64] is set; one word per 64 endpoints.
    static Usable bitmap(const std::uint64_t* words) {
        return Usable(
            [](const void* context, std::size_t i) {
                return (static_cast<const std::uint64_t*>(context)[i / 64] >> (i % 64) & 1) != 0;
            },
            words);
    }

    // Endpoint i may be chosen when predicate(i) is true.
    template <typename F>
    requires(!std::is_same_v<std::remove_cvref_t<F>, Usable> &&
             std::is_invocable_r_v<bool, const F&, std::size_t>)
        Usable(const F& predicate)  // NOLINT(google-explicit-constructor): a view, like string_view
        : test_([](const void* context, std::size_t i) -> bool {
              return (*static_cast<const F*>(context))(i);
          }),
          context_(std::addressof(predicate)) {}

    bool operator()(std::size_t i) const { return test_ == nullptr || test_(context_, i); }
    bool is_all() const { return test_ == nullptr; }

  private:
    using Test = bool (*)(const void* context, std::size_t i);
    Usable(Test test, const void* context) : test_(test), context_(context) {}

    Test test_;
    const void* context_;
};

}  // namespace outrider::policy
