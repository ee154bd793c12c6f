// Shared ownership within one thread: a reference count without atomics. Objects of one worker only.
#pragma once

#include <cstdint>
#include <utility>

namespace outrider {

class RefCounted {
  public:
    RefCounted() = default;
    RefCounted(const RefCounted&) = delete;
    RefCounted& operator=(const RefCounted&) = delete;
    virtual ~RefCounted() = default;

  private:
    template <typename T>
    friend class Ref;
    std::uint32_t refs_ = 0;
};

template <typename T>
class Ref {
  public:
    Ref() = default;
    explicit Ref(T* object) : object_(object) { retain(); }
    Ref(const Ref& other) : object_(other.object_) { retain(); }
    Ref(Ref&& other) noexcept : object_(std::exchange(other.object_, nullptr)) {}
    Ref& operator=(Ref other) noexcept {
        std::swap(object_, other.object_);
        return *this;
    }
    ~Ref() { release(); }

    T* get() const { return object_; }
    T* operator->() const { return object_; }
    T& operator*() const { return *object_; }
    explicit operator bool() const { return object_ != nullptr; }
    void reset() {
        release();
        object_ = nullptr;
    }
    friend bool operator==(const Ref&, const Ref&) = default;

  private:
    void retain() {
        if (object_ != nullptr) ++static_cast<RefCounted*>(object_)->refs_;
    }
    void release() {
        if (object_ != nullptr && --static_cast<RefCounted*>(object_)->refs_ == 0) delete object_;
    }
    T* object_ = nullptr;
};

}  // namespace outrider
