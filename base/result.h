// The value of an operation that can fail for reasons outside this program.
//
// Operating errors (a bad file, a refused connection) travel as values; errors of the programmer are
// caught by require() in check.h. std::expected is not in this toolchain's C++20, hence this small type.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace outrider {

// What went wrong, as a sentence a person can act on ("cannot listen on 0.0.0.0:80: permission denied").
struct Error {
    std::string message;
};

template <typename T>
class [[nodiscard]] Result {
  public:
    Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT
    Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

    bool ok() const { return state_.index() == 0; }
    explicit operator bool() const { return ok(); }

    T& value() & {
        require(ok(), "Result::value() of a failed result");
        return *std::get_if<0>(&state_);
    }
    const T& value() const& {
        require(ok(), "Result::value() of a failed result");
        return *std::get_if<0>(&state_);
    }
    T&& value() && {
        require(ok(), "Result::value() of a failed result");
        return std::move(*std::get_if<0>(&state_));
    }
    T& operator*() & { return value(); }
    const T& operator*() const& { return value(); }
    T* operator->() { return &value(); }
    const T* operator->() const { return &value(); }

    const std::string& error() const {
        require(!ok(), "Result::error() of a successful result");
        return std::get_if<1>(&state_)->message;
    }

  private:
    std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT

    bool ok() const { return ok_; }
    explicit operator bool() const { return ok_; }
    const std::string& error() const {
        require(!ok_, "Result::error() of a successful result");
        return error_.message;
    }

  private:
    Error error_;
    bool ok_ = true;
};

}  // namespace outrider
