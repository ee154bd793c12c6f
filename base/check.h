// Programmer errors: a broken invariant ends the process with a sentence, in every build type.
//
// Never for outside input: what a peer, a file or an operator can cause is an operating error (result.h).
#pragma once

namespace outrider {

[[noreturn]] void require_failed(const char* sentence, const char* file, int line);

// One condition each. The sentence says what must hold, not what failed.

inline void require(bool condition, const char* sentence, const char* file = __builtin_FILE(),
                    int line = __builtin_LINE()) {
    if (!condition) [[unlikely]] {
        require_failed(sentence, file, line);
    }
}

}  // namespace outrider
