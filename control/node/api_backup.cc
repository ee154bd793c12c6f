// /v3/maintenance/snapshot: the state as a stream of pieces with what remains, as etcd sends it. The bytes are a snapshot file
// (snapshot_file.h) and behind it the SHA-256 of all before.
//
// The state is first written to a file without a name, while the node goes on; the stream then takes as much as the client reads.
#include "control/node/api_backup.h"

#include <utility>

namespace outrider::node {
namespace {

constexpr std::uint64_t kPieceBytes = std::uint64_t{192} << 10;

}  // namespace

void ApiCall::begin_backup() {
    const bool begun =
        server_.node().backup([this, alive = alive_](std::shared_ptr<wal::File> file, std::uint64_t bytes,
                                                     const std::string& problem) {
            if (!*alive) return;
            const uv::Loop::Event event(connection().loop());
            if (file == nullptr) {
                if (problem.empty())
                    refuse(api::kLeaderChanged);
                else
                    send(api::refuse(api::Code::kFailedPrecondition, "no backup is made: " + problem));
                return;
            }
            stream_ = true;
            server_.add_stream(*this);
            backup_ = std::make_unique<Backup>();
            backup_->file = std::move(file);
            backup_->bytes = bytes;
            send_backup();
        });
    if (!begun) refuse(api::kTooManyRequests);
}

void ApiCall::begin_hash() {
    server_.node().hash([this, alive = alive_](const std::optional<Node::Hashed>& hashed) {
        if (!*alive) return;
        const uv::Loop::Event event(connection().loop());
        if (hashed)
            send(server_.responder().hash(hashed->revision, hashed->digest));
        else
            refuse(api::kStopped);
    });
}

void ApiCall::send_backup() {
    std::string room;
    while (backup_ != nullptr && !response_blocked()) {
        Backup& backup = *backup_;
        const std::uint64_t left = backup.bytes - backup.at;
        if (left == 0) {
            const Sha256::Digest digest = backup.digest.finish();
            backup_.reset();
            write_line(server_.responder().snapshot_piece(std::string(digest.begin(), digest.end()), 0));
            stream_ = false;
            finish();
            return;
        }
        room.resize(std::min(kPieceBytes, left));
        const wal::File::Count count = backup.file->read_at(backup.at, room);
        if (count.error || count.bytes != room.size()) {
            backup_.reset();
            abort_response();  // the client must see that it is cut
            return;
        }
        backup.digest.add(room);
        backup.at += room.size();
        write_line(server_.responder().snapshot_piece(room, backup.bytes - backup.at + Sha256::kBytes));
        connection().loop().flush();
    }
}

}  // namespace outrider::node
