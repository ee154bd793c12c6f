// Memory that cools: what is in it stays, and leaves the process.
#include "base/cold_memory.h"

#include <algorithm>
#include <cstdint>
#include <deque>
#include <fstream>
#include <map>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include "base/cold_arena.h"
#include "base/cold_queue.h"
#include "base/random.h"
#include "base/scratch_file.h"

namespace outrider {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::string temporary() {
    std::string name = ::testing::TempDir() + "cold.XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    return name;
}

// Of the mapped files' pages, how many bytes are in the process.
std::size_t resident_of_files() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        const std::string name = line.substr(0, line.find(':'));
        if (name == "RssFile" || name == "RssShmem") {
            const auto bytes = std::stoul(line.substr(line.find(':') + 1)) * 1024;
            if (name == "RssShmem") return bytes;  // a file of tmpfs
            std::getline(status, line);
            return bytes + std::stoul(line.substr(line.find(':') + 1)) * 1024;
        }
    }
    return 0;
}

// Counts what is out, and what was cooled.
class Counted final : public ColdMemory {
  public:
    std::span<char> take(std::size_t bytes) override {
        const auto block = heap_memory()->take(bytes);
        out.insert(block.data());
        return block;
    }
    void give_back(std::span<char> block) override {
        EXPECT_EQ(out.erase(block.data()), 1U);
        heap_memory()->give_back(block);
    }
    void cool(std::span<char> block) override {
        EXPECT_TRUE(out.contains(block.data()));
        ++cooled;
    }
    std::set<const char*> out;
    std::size_t cooled = 0;
};

TEST(ScratchFile, WhatIsCooledLeavesTheProcessAndIsThereWhenItIsAskedFor) {
    const std::string directory = temporary();
    {
        ScratchFile file(directory);
        std::vector<std::span<char>> blocks;
        const std::size_t before = resident_of_files();
        for (std::size_t i = 0; i < 64; ++i) {
            blocks.push_back(file.take(1));
            ASSERT_EQ(blocks[i].size(), ColdMemory::kBlockBytes);
            ASSERT_EQ(reinterpret_cast<std::uintptr_t>(blocks[i].data()) % ColdMemory::kBlockBytes, 0U);
            std::ranges::fill(blocks[i], static_cast<char>('0' + i));
        }
        EXPECT_GE(resident_of_files(), before + 15 * kMiB);
        for (const auto block : blocks)
            file.cool(block);
        EXPECT_LE(resident_of_files(), before + kMiB);
        for (std::size_t i = 0; i < 64; ++i) {
            EXPECT_TRUE(
                std::ranges::all_of(blocks[i], [&](char c) { return c == static_cast<char>('0' + i); }));
            file.give_back(blocks[i]);
        }
        EXPECT_LE(resident_of_files(), before + kMiB);
    }
    EXPECT_EQ(::rmdir(directory.c_str()), 0) << "the file has no name";
}

TEST(ScratchFile, ABlockIsLargeEnoughAndComesEmptyWhenItsRoomIsUsedAgain) {
    const std::string directory = temporary();
    {
        ScratchFile file(directory);
        const auto large = file.take(ColdMemory::kBlockBytes * 3 + 1);
        EXPECT_EQ(large.size(), ColdMemory::kBlockBytes * 4);
        std::ranges::fill(large, 'x');
        file.give_back(large);
        const auto again = file.take(ColdMemory::kBlockBytes * 4);
        EXPECT_TRUE(std::ranges::all_of(again, [](char c) { return c == 0; }));
        file.give_back(again);
    }
    EXPECT_EQ(::rmdir(directory.c_str()), 0);
}

TEST(ScratchFile, BlocksOfAllSizesKeepTheirContentsOverManyExtents) {
    const std::string directory = temporary();
    {
        ScratchFile file(directory);
        Random random(3);
        std::vector<std::pair<std::span<char>, char>> blocks;
        std::size_t held = 0;
        for (int i = 0; i < 2000; ++i) {
            if (blocks.size() < 20 || (held < 200 * kMiB && random.below(5) < 3)) {
                const std::size_t slots = random.below(3) == 0 ? 1 + random.below(20) : 1;
                const auto block = file.take(slots * ColdMemory::kBlockBytes);
                ASSERT_EQ(block.front(), 0);
                ASSERT_EQ(block.back(), 0);
                const char mark = static_cast<char>(1 + random.below(100));
                block.front() = block.back() = mark;
                blocks.emplace_back(block, mark);
                held += block.size();
                continue;
            }
            std::swap(blocks[random.below(blocks.size())], blocks.back());
            const auto [block, mark] = blocks.back();
            blocks.pop_back();
            ASSERT_EQ(block.front(), mark);
            ASSERT_EQ(block.back(), mark);
            held -= block.size();
            file.give_back(block);
            if (!blocks.empty()) file.cool(blocks.front().first);
        }
        EXPECT_GT(held, ScratchFile::kExtentBytes);
        for (const auto& [block, mark] : blocks)
            file.give_back(block);
    }
    EXPECT_EQ(::rmdir(directory.c_str()), 0);
}

TEST(ScratchFile, WhereThereCanBeNoFileItIsTheHeap) {
    ScratchFile file("/proc/no/such/directory");
    const auto block = file.take(1);
    ASSERT_EQ(block.size(), ColdMemory::kBlockBytes);
    std::ranges::fill(block, 'x');
    file.cool(block);
    EXPECT_EQ(block.back(), 'x');
    file.give_back(block);
}

TEST(ColdArena, PiecesKeepTheirContentsAndBlocksGoBackWhenTheyAreEmpty) {
    const auto memory = std::make_shared<Counted>();
    {
        ColdArena arena(memory);
        Random random(1);
        std::map<std::uint64_t, std::pair<char*, std::size_t>> pieces;
        std::uint64_t next = 0;
        for (int i = 0; i < 20'000; ++i) {
            const bool large = random.below(500) == 0;
            const std::size_t size = 1 + random.below(large ? ColdMemory::kBlockBytes * 2 : 300);
            char* piece = arena.take(size);
            ASSERT_EQ(reinterpret_cast<std::uintptr_t>(piece) % ColdArena::kAlignment, 0U);
            std::fill_n(piece, size, static_cast<char>(next));
            pieces[next++] = {piece, size};
            if (pieces.size() < 5000) continue;
            auto gone = pieces.begin();  // about in the order in which they came
            std::advance(gone, static_cast<std::ptrdiff_t>(random.below(100)));
            const auto [number, where] = *gone;
            ASSERT_TRUE(std::all_of(where.first, where.first + where.second,
                                    [n = number](char c) { return c == static_cast<char>(n); }));
            arena.give_back(where.first);
            pieces.erase(gone);
        }
        EXPECT_GT(memory->cooled, 10U);
        EXPECT_LT(memory->out.size(), 60U) << "5,000 pieces of 150 bytes, and ten large ones";
        while (!pieces.empty()) {
            arena.give_back(pieces.begin()->second.first);
            pieces.erase(pieces.begin());
        }
        EXPECT_EQ(arena.blocks(), 1U) << "the one that is being filled";
    }
    EXPECT_TRUE(memory->out.empty());
}

TEST(ColdQueue, IsAQueueThatCanBeSearched) {
    const auto memory = std::make_shared<Counted>();
    {
        ColdQueue<std::uint64_t> queue(memory);
        std::deque<std::uint64_t> model;
        Random random(2);
        std::uint64_t value = 0;
        for (int round = 0; round < 60; ++round) {
            for (std::uint64_t n = random.below(ColdQueue<std::uint64_t>::kInBlock); n > 0; --n) {
                value += random.below(3);
                queue.push_back(value);
                model.push_back(value);
            }
            for (std::uint64_t n = random.below(model.size() + 1); n > 0; --n) {
                queue.pop_front();
                model.pop_front();
            }
            ASSERT_EQ(queue.size(), model.size());
            ASSERT_EQ(queue.empty(), model.empty());
            if (!model.empty()) {
                ASSERT_EQ(queue.front(), model.front());
            }
            for (int i = 0; i < 100; ++i) {
                const std::uint64_t sought =
                    value < 1000 ? random.below(value + 2) : value - 900 + random.below(1000);
                const auto before = [&](std::uint64_t v) { return v < sought; };
                const auto at = queue.partition_point(before);
                ASSERT_EQ(at, static_cast<std::size_t>(
                                  std::partition_point(model.begin(), model.end(), before) - model.begin()));
                if (at < model.size()) {
                    ASSERT_EQ(queue[at], model[at]);
                }
            }
        }
        EXPECT_GT(memory->cooled, 10U);
    }
    EXPECT_TRUE(memory->out.empty());
}

}  // namespace
}  // namespace outrider
