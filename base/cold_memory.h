// Memory for what is kept for long and seldom looked at, such as the history of a key space.
//
// It is handed out in blocks. A block that its user has filled is cooled: where the memory is a file's (scratch_file.h), its pages
// leave the process until they are touched again, and the kernel may write them out when others need the room. On the heap
// nothing cools. What is read back from a file may be wrong when its disk is: users that must know keep a check of their own.
#pragma once

#include <cstddef>
#include <memory>
#include <span>

namespace outrider {

class ColdMemory {
  public:
    static constexpr std::size_t kBlockBytes = std::size_t{256} << 10;

    virtual ~ColdMemory() = default;
    // Never fails but by std::bad_alloc. A multiple of kBlockBytes that holds `bytes` (1 or more), aligned to kBlockBytes.
    virtual std::span<char> take(std::size_t bytes) = 0;
    virtual void give_back(std::span<char> block) = 0;
    // Its contents stay, and its address.
    virtual void cool(std::span<char> block) = 0;

    // What `bytes` are rounded up to.
    static constexpr std::size_t round(std::size_t bytes) {
        return (bytes + kBlockBytes - 1) / kBlockBytes * kBlockBytes;
    }
};

// On the heap. Any thread.
std::shared_ptr<ColdMemory> heap_memory();

}  // namespace outrider
