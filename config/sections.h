// One function for each section of the file: table -> settings, every mistake reported. What only
// shows across sections (references, duplicates, hidden routes) is validate.h's.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/reader.h"
#include "config/settings.h"

namespace outrider::config {

inline constexpr std::size_t kListenersMax = 256;
inline constexpr std::size_t kRoutesMax = 10'000;
inline constexpr std::size_t kClustersMax = 10'000;
inline constexpr std::size_t kRouteClustersMax = 64;  // weighted clusters of a route
inline constexpr std::size_t kHeaderRulesMax = 256;   // lines of one set, add or remove
inline constexpr std::size_t kRetryOnMax = 256;       // elements of retry.on
inline constexpr std::size_t kStoresMax = 64;         // each has threads or connections of its own
inline constexpr std::size_t kScopeMax = 8;           // elements of idempotency.scope
inline constexpr std::size_t kVaryMax = 16;           // elements of collapse.vary

// Words of the closed sets, shared with to_toml().
inline constexpr Choice<Balance> kBalances[] = {{"round-robin", Balance::kRoundRobin},
                                                {"least-request", Balance::kLeastRequest},
                                                {"ring-hash", Balance::kRingHash},
                                                {"maglev", Balance::kMaglev}};
inline constexpr Choice<HealthKind> kHealthKinds[] = {{"http", HealthKind::kHttp}, {"tcp", HealthKind::kTcp}};
inline constexpr Choice<ChannelMode> kChannelModes[] = {{"pooled", ChannelMode::kPooled},
                                                        {"pipelined", ChannelMode::kPipelined}};
inline constexpr Choice<HealthDetectorKind> kHealthDetectors[] = {{"count", HealthDetectorKind::kCount},
                                                                  {"phi", HealthDetectorKind::kPhi}};
inline constexpr Choice<AccessFormat> kAccessFormats[] = {{"text", AccessFormat::kText},
                                                          {"json", AccessFormat::kJson}};
inline constexpr Choice<KeySyntax> kKeySyntaxes[] = {{"strict", KeySyntax::kStrict},
                                                     {"lenient", KeySyntax::kLenient}};
inline constexpr Choice<InFlight> kInFlights[] = {{"wait", InFlight::kWait},
                                                  {"conflict", InFlight::kConflict}};
inline constexpr Choice<OnStoreError> kOnStoreErrors[] = {{"reject", OnStoreError::kReject},
                                                          {"forward", OnStoreError::kForward}};
inline constexpr Choice<OnUnknown> kOnUnknowns[] = {{"reject", OnUnknown::kReject},
                                                    {"reexecute", OnUnknown::kReexecute}};
inline constexpr Choice<RecordAnswers> kRecords[] = {{"all", RecordAnswers::kAll},
                                                     {"2xx-4xx", RecordAnswers::kBelow500}};
inline constexpr Choice<BatchFormat> kBatchFormats[] = {{"json-array", BatchFormat::kJsonArray},
                                                        {"ndjson", BatchFormat::kNdjson},
                                                        {"json-rpc", BatchFormat::kJsonRpc}};
inline constexpr Choice<StoreKind> kStoreKinds[] = {
    {"memory", StoreKind::kMemory}, {"log", StoreKind::kLog}, {"redis", StoreKind::kRedis}};
inline constexpr Choice<SyncMode> kSyncModes[] = {{"group", SyncMode::kGroup}, {"none", SyncMode::kNone}};

void read_node(TableReader& root, NodeSettings& out);
void read_runtime(TableReader& root, RuntimeSettings& out);
void read_admin(TableReader& root, AdminSettings& out);
void read_log(TableReader& root, LogSettings& out);
void read_drain(TableReader& root, DrainSettings& out);
void read_listeners(TableReader& root, std::vector<ListenerSettings>& out);
void read_routes(TableReader& root, std::vector<RouteSettings>& out);
void read_clusters(TableReader& root, std::vector<ClusterSettings>& out);
// [route.retry] [route.hedge] [route.rate_limit] [route.concurrency] [route.fault]. `timeout` is the route's:
// 0 when there is none, or when it is wrong and nothing can be held against it.
void read_route_policies(TableReader& route, Duration timeout, RouteSettings& out);
// [route.idempotency].
void read_idempotency(TableReader& route, std::optional<IdempotencySettings>& out);
// [route.collapse] and [route.batch].
void read_sharing(TableReader& route, RouteSettings& out);
// Of a table that only makes sense on the way to an upstream. `does`: "repeats what an upstream gets".
void require_cluster(TableReader& route, TableReader& table, std::string_view does);
// [store.NAME], sorted by name.
void read_stores(TableReader& root, std::vector<StoreSettings>& out);
// [cluster.health] [cluster.outlier] [cluster.limits] and panic_percent.
void read_cluster_policies(TableReader& cluster, ClusterSettings& out);

}  // namespace outrider::config
