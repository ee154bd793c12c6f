// One visitor out of several lambdas: std::visit(Overloaded{[](const A&) { … }, [](const B&) { … }}, variant).
#pragma once

namespace outrider {

template <typename... F>
struct Overloaded : F... {
    using F::operator()...;
};
template <typename... F>
Overloaded(F...) -> Overloaded<F...>;

}  // namespace outrider
