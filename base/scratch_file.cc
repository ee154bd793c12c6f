#include "base/scratch_file.h"

#include <algorithm>
#include <cerrno>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"

namespace outrider {
namespace {

std::string text_of(int error) {
    return std::generic_category().message(error);
}

}  // namespace

ScratchFile::~ScratchFile() {
    for (const Extent& extent : extents_) {
        require(extent.unused == kSlots, "a scratch file outlives its blocks");
        ::munmap(extent.memory, kExtentBytes);
    }
    if (file_ >= 0) ::close(file_);
}

void ScratchFile::warn(const char* what, const std::string& why) {
    if (warned_) return;
    warned_ = true;
    log_warning("cannot {} the file for history in {}: {}. History stays in memory, and needs more of it",
                what, directory_, why);
}

bool ScratchFile::open() {
    if (file_ >= 0) return true;
    if (unusable_) return false;
    file_ = ::open(directory_.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, 0600);
    if (file_ < 0) {  // not every file system has it
        std::string name = directory_ + "/" + std::string(kNamed) + "XXXXXX";
        file_ = ::mkostemp(name.data(), O_CLOEXEC);
        if (file_ >= 0) ::unlink(name.c_str());
    }
    if (file_ >= 0) return true;
    unusable_ = true;
    warn("open", text_of(errno));
    return false;
}

bool ScratchFile::add_extent() {
    const std::uint64_t offset = extents_.size() * std::uint64_t{kExtentBytes};
    // More than needed, so that there is an aligned part of it.
    const std::size_t reserved = kExtentBytes + kBlockBytes;
    void* const room =
        ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) {
        warn("map", text_of(errno));
        return false;
    }
    char* const begin = static_cast<char*>(room);
    const std::size_t skipped =
        (kBlockBytes - reinterpret_cast<std::uintptr_t>(begin) % kBlockBytes) % kBlockBytes;
    char* const memory = begin + skipped;
    if (skipped > 0) ::munmap(begin, skipped);
    ::munmap(memory + kExtentBytes, kBlockBytes - skipped);
    if (::ftruncate(file_, static_cast<off_t>(offset + kExtentBytes)) != 0 ||
        ::mmap(memory, kExtentBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file_,
               static_cast<off_t>(offset)) == MAP_FAILED) {
        warn("map", text_of(errno));
        ::munmap(memory, kExtentBytes);
        return false;
    }
    by_address_.emplace(memory, extents_.size());
    with_room_.insert(extents_.size());
    extents_.emplace_back().memory = memory;
    return true;
}

std::size_t ScratchFile::extent_of(const char* block) const {
    const auto behind = by_address_.upper_bound(block);
    if (behind == by_address_.begin()) return extents_.size();
    const auto& [memory, extent] = *std::prev(behind);
    return block < memory + kExtentBytes ? extent : extents_.size();
}

std::uint64_t ScratchFile::offset_of(std::size_t extent, const char* block) const {
    return extent * std::uint64_t{kExtentBytes} + static_cast<std::uint64_t>(block - extents_[extent].memory);
}

bool ScratchFile::claim(std::uint64_t offset, std::size_t size) {
    struct statvfs system {};
    if (::fstatvfs(file_, &system) != 0) {
        warn("extend", text_of(errno));
        return false;
    }
    const std::uint64_t free = std::uint64_t{system.f_bavail} * system.f_frsize;
    const std::uint64_t left = std::min(std::uint64_t{system.f_blocks} * system.f_frsize / 10, kLeftMax);
    if (free < left + size) {
        warn("extend", "the disk is nearly full");
        return false;
    }
    if (::fallocate(file_, 0, static_cast<off_t>(offset), static_cast<off_t>(size)) == 0) return true;
    warn("extend", text_of(errno));
    return false;
}

char* ScratchFile::take_slots(std::size_t count) {
    if (count > kSlots || !open()) return nullptr;
    // One slot is wherever there is room; for more, an extent may have too many holes.
    for (auto it = with_room_.begin();; ++it) {
        if (it == with_room_.end()) {
            if (!add_extent()) return nullptr;
            it = std::prev(with_room_.end());
        }
        Extent& extent = extents_[*it];
        std::size_t run = 0;
        for (std::size_t slot = 0; slot < kSlots; ++slot) {
            run = extent.used[slot] ? 0 : run + 1;
            if (run < count) continue;
            const std::size_t first = slot + 1 - count;
            char* const block = extent.memory + first * kBlockBytes;
            if (!claim(offset_of(*it, block), count * kBlockBytes)) return nullptr;
            std::fill_n(extent.used.begin() + static_cast<std::ptrdiff_t>(first), count, true);
            extent.unused -= count;
            if (extent.unused == 0) with_room_.erase(it);
            return block;
        }
    }
}

std::span<char> ScratchFile::take(std::size_t bytes) {
    const std::size_t size = round(bytes);
    {
        const std::lock_guard lock(mutex_);
        if (char* block = take_slots(size / kBlockBytes); block != nullptr) return {block, size};
    }
    return heap_memory()->take(bytes);
}

void ScratchFile::give_back(std::span<char> block) {
    {
        const std::lock_guard lock(mutex_);
        if (const std::size_t index = extent_of(block.data()); index < extents_.size()) {
            // Unmaps its pages as well. Zeros for the next user, and nothing that need be written any more.
            if (::fallocate(file_, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            static_cast<off_t>(offset_of(index, block.data())),
                            static_cast<off_t>(block.size())) != 0)
                warn("shrink", text_of(errno));
            Extent& extent = extents_[index];
            const auto first = static_cast<std::size_t>(block.data() - extent.memory) / kBlockBytes;
            const std::size_t count = block.size() / kBlockBytes;
            std::fill_n(extent.used.begin() + static_cast<std::ptrdiff_t>(first), count, false);
            extent.unused += count;
            with_room_.insert(index);
            return;
        }
    }
    heap_memory()->give_back(block);
}

void ScratchFile::cool(std::span<char> block) {
    const std::lock_guard lock(mutex_);
    // Of a shared mapping this forgets the pages, not what is in them.
    if (extent_of(block.data()) < extents_.size()) ::madvise(block.data(), block.size(), MADV_DONTNEED);
}

}  // namespace outrider
