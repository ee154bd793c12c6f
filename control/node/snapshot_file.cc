#include "control/node/snapshot_file.h"

#include <charconv>
#include <utility>

#include <fmt/format.h>
#include <xxhash.h>

#include "base/bytes.h"
#include "base/check.h"
#include "control/node/wire.h"

namespace outrider::node {
namespace {

constexpr std::string_view kMagic = "OUTRSNP\n";
constexpr std::size_t kFixedBytes = 16;
constexpr std::string_view kPrefix = "snapshot-";
constexpr std::string_view kSuffix = ".snap";
constexpr std::size_t kDigits = 20;

void put_little(std::string& out, std::uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; ++i)
        out.push_back(static_cast<char>(value >> (8 * i)));
}

std::uint64_t get_little(std::string_view text, std::size_t at, unsigned bytes) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < bytes; ++i)
        value |= std::uint64_t{static_cast<unsigned char>(text[at + i])} << (8 * i);
    return value;
}

}  // namespace

std::string encode(const SnapshotHead& head) {
    proto::SnapshotHeader message;
    message.set_cluster_id(head.cluster_id);
    to_proto(head.meta, *message.mutable_meta());
    std::string header;
    require(message.SerializeToString(&header) && header.size() <= kSnapshotHeaderBytesMax,
            "a snapshot's header is small");
    std::string out(kMagic);
    put_little(out, kSnapshotFormat, 4);
    put_little(out, header.size(), 4);
    out += header;
    put_little(out, XXH3_64bits(out.data(), out.size()), 8);
    return out;
}

std::string snapshot_name(raft::LogIndex index) {
    return fmt::format("{}{:020}{}", kPrefix, index.value, kSuffix);
}

std::optional<raft::LogIndex> parse_snapshot_name(std::string_view name) {
    if (name.size() != kPrefix.size() + kDigits + kSuffix.size()) return std::nullopt;
    if (!name.starts_with(kPrefix) || !name.ends_with(kSuffix)) return std::nullopt;
    const std::string_view digits = name.substr(kPrefix.size(), kDigits);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return raft::LogIndex{value};
}

Result<bool> SnapshotParser::read_head() {
    if (pending_.size() < kFixedBytes) return false;
    if (std::string_view(pending_).substr(0, kMagic.size()) != kMagic)
        return Error{"it is no snapshot of outrider"};
    const std::uint64_t format = get_little(pending_, 8, 4);
    if (format > kSnapshotFormat)
        return Error{fmt::format("it is of format {}, and this outrider reads up to {}: use the newer one",
                                 format, kSnapshotFormat)};
    const std::uint64_t size = get_little(pending_, 12, 4);
    if (size > kSnapshotHeaderBytesMax) return Error{"its header is damaged"};
    const std::size_t end = kFixedBytes + size;
    if (pending_.size() < end + 8) return false;
    proto::SnapshotHeader message;
    if (get_little(pending_, end, 8) != XXH3_64bits(pending_.data(), end) ||
        !message.ParseFromArray(pending_.data() + kFixedBytes, static_cast<int>(size)))
        return Error{"its header is damaged"};
    auto meta = from_proto(message.meta());
    if (!meta) return Error{meta.error()};
    head_ = SnapshotHead{message.cluster_id(), std::move(*meta)};
    pending_.erase(0, end + 8);
    return true;
}

Result<void> SnapshotParser::add(std::string_view bytes) {
    if (!error_.empty()) return Error{error_};
    Result<void> added;
    if (head_) {
        added = reader_.add(bytes);
    } else {
        pending_.append(bytes);
        const auto read = read_head();
        if (!read) {
            added = Error{read.error()};
        } else if (*read) {
            added = reader_.add(std::exchange(pending_, {}));
        }
    }
    if (!added) error_ = added.error();
    return added;
}

Result<SnapshotParser::Snapshot> SnapshotParser::finish() {
    if (!error_.empty()) return Error{error_};
    if (!head_) return Error{"it ends within its header"};
    auto store = reader_.finish();
    if (!store) return Error{store.error()};
    if ((*store)->applied_index() != head_->meta.index.value)
        return Error{"its header names another entry than its state"};
    return Snapshot{std::move(*head_), std::move(*store)};
}

}  // namespace outrider::node
