#include "base/cold_memory.h"

#include <new>

namespace outrider {
namespace {

class HeapMemory final : public ColdMemory {
  public:
    std::span<char> take(std::size_t bytes) override {
        const std::size_t size = round(bytes);
        return {static_cast<char*>(::operator new (size, std::align_val_t{kBlockBytes})), size};
    }
    void give_back(std::span<char> block) override {
        ::operator delete (block.data(), std::align_val_t{kBlockBytes});
    }
    void cool(std::span<char> /*block*/) override {}
};

}  // namespace

std::shared_ptr<ColdMemory> heap_memory() {
    static const std::shared_ptr<ColdMemory> memory = std::make_shared<HeapMemory>();
    return memory;
}

}  // namespace outrider
