// Settings -> TOML.
#include <string>
#include <string_view>

#include "base/bytes.h"
#include "base/units.h"
#include "config/credentials.h"
#include "config/diagnostics.h"
#include "config/environment.h"
#include "config/load.h"
#include "config/redis_url.h"
#include "config/sections.h"
#include "config/syntax.h"

namespace outrider::config {
namespace {

// A TOML basic string that reads back as `text`, environment substitution included.
std::string literal(std::string_view text) {
    constexpr std::string_view kHex = "0123456789ABCDEF";
    std::string out = "\"";
    for (const char c : escape_environment(text)) {
        const auto byte = static_cast<unsigned char>(c);
        if (c == '"' || c == '\\') {
            out += {'\\', c};
        } else if (c == '\n') {
            out += "\\n";
        } else if (byte < 0x20 || byte == 0x7f) {
            out += "\\u00";
            out += {kHex[byte >> 4], kHex[byte & 15]};
        } else {
            out += c;
        }
    }
    return out + "\"";
}

std::string literal(double value) {
    return number_text(value);
}

std::string literal(bool value) {
    return value ? "true" : "false";
}
std::string literal(Duration value) {
    return literal(std::string_view(outrider::to_string(value)));
}
std::string literal(Bytes value) {
    return literal(std::string_view(outrider::to_string(value)));
}
std::string literal(const HostPort& value) {
    return literal(std::string_view(config::to_string(value)));
}
template <std::integral T>
std::string literal(T value) {
    return std::to_string(value);
}

template <typename T>
std::string literal_list(const std::vector<T>& values) {
    std::string out;
    for (const T& value : values)
        out += (out.empty() ? "" : ", ") + literal(value);
    return "[" + out + "]";
}

template <typename E, std::size_t N>
std::string word(const Choice<E> (&choices)[N], E value) {
    for (const Choice<E>& choice : choices) {
        if (choice.value == value) return literal(choice.word);
    }
    return literal("");
}

// { key = value, ... }, built in order.
class InlineTable {
  public:
    void add(std::string_view key, const std::string& value) {
        if (!text_.empty()) text_ += ", ";
        text_.append(key).append(" = ").append(value);
    }
    bool empty() const { return text_.empty(); }
    std::string str() const { return text_.empty() ? "{}" : "{ " + text_ + " }"; }

  private:
    std::string text_;
};

class Writer {
  public:
    explicit Writer(Secrets secrets) : secrets_(secrets) {}

    void section(std::string_view header) {
        if (!out_.empty()) out_ += '\n';
        out_.append(header).append("\n");
    }
    void line(std::string_view key, const std::string& value) {
        out_.append(key).append(" = ").append(value).append("\n");
    }
    // A header's value, unless it is to be hidden.
    std::string header_value(std::string_view name, const std::string& value) const {
        return literal(secrets_ == Secrets::kHide && carries_credentials(name) ? std::string_view("***")
                                                                               : std::string_view(value));
    }
    std::string url(const RedisUrl& value) const {
        return literal(std::string_view(config::to_string(value, secrets_)));
    }
    std::string take() { return std::move(out_); }

  private:
    Secrets secrets_;
    std::string out_;
};

void write_process(const Settings& s, Writer& w) {
    w.section("[node]");
    w.line("name", literal(s.node.name));
    w.line("service", literal(s.node.service));
    w.line("address", literal(s.node.address));
    w.line("zone", literal(s.node.zone));
    w.section("[runtime]");
    w.line("workers", literal(s.runtime.workers));
    w.line("max_connections", literal(s.runtime.max_connections));
    w.line("spin", literal(s.runtime.spin));
    w.section("[admin]");
    w.line("listen", literal(s.admin.listen));
    if (s.admin.status_listen) w.line("status_listen", literal(*s.admin.status_listen));
    w.section("[log]");
    w.line("level", literal(s.log.level));
    w.line("access", literal(s.log.access));
    w.line("access_format", word(kAccessFormats, s.log.access_format));
    w.section("[drain]");
    w.line("delay", literal(s.drain.delay));
    w.line("timeout", literal(s.drain.timeout));
}

void write_listener(const ListenerSettings& s, Writer& w) {
    w.section("[[listener]]");
    w.line("name", literal(s.name));
    w.line("listen", literal(s.listen));
    w.line("header_timeout", literal(s.header_timeout));
    w.line("idle_timeout", literal(s.idle_timeout));
    w.line("body_idle_timeout", literal(s.body_idle_timeout));
    w.line("min_body_rate", literal(s.min_body_rate));
    w.line("min_read_rate", literal(s.min_read_rate));
    w.line("max_header_bytes", literal(s.max_header_bytes));
    w.line("max_headers", literal(s.max_headers));
    w.line("max_target_bytes", literal(s.max_target_bytes));
    w.line("max_body_bytes", literal(s.max_body_bytes));
    w.line("max_pipelined", literal(s.max_pipelined));
    w.line("trust_forwarded", literal(s.trust_forwarded));
}

std::string match_table(const MatchSettings& s, const Writer& w) {
    InlineTable table;
    if (!s.host.empty()) table.add("host", literal(s.host));
    if (!s.path.empty()) table.add("path", literal(s.path));
    if (!s.path_prefix.empty()) table.add("path_prefix", literal(s.path_prefix));
    if (!s.methods.empty()) table.add("methods", literal_list(s.methods));
    InlineTable headers;
    for (const HeaderMatch& header : s.headers) {
        headers.add(literal(header.name), w.header_value(header.name, header.value));
    }
    if (!headers.empty()) table.add("headers", headers.str());
    return table.str();
}

std::string rules_table(const HeaderRules& s, const Writer& w) {
    InlineTable set;
    for (const auto& [name, value] : s.set)
        set.add(literal(name), w.header_value(name, value));
    InlineTable add;
    for (std::size_t i = 0; i < s.add.size();) {
        const std::string& name = s.add[i].first;
        std::string values;
        for (; i < s.add.size() && s.add[i].first == name; ++i) {
            values += (values.empty() ? "" : ", ") + w.header_value(name, s.add[i].second);
        }
        add.add(literal(name), "[" + values + "]");
    }
    InlineTable table;
    table.add("set", set.str());
    table.add("add", add.str());
    table.add("remove", literal_list(s.remove));
    return table.str();
}

std::string redirect_table(const RedirectSettings& s) {
    InlineTable table;
    table.add("status", literal(s.status));
    if (!s.scheme.empty()) table.add("scheme", literal(s.scheme));
    if (!s.host.empty()) table.add("host", literal(s.host));
    if (!s.path.empty()) table.add("path", literal(s.path));
    if (s.prefix) table.add("prefix", literal(*s.prefix));
    table.add("keep_query", literal(s.keep_query));
    return table.str();
}

void write_target(const RouteSettings& s, Writer& w) {
    if (s.clusters.size() == 1 && s.clusters.front().weight == 1) {
        w.line("cluster", literal(s.clusters.front().name));
    } else if (!s.clusters.empty()) {
        std::string all;
        for (const WeightedCluster& cluster : s.clusters) {
            InlineTable table;
            table.add("name", literal(cluster.name));
            table.add("weight", literal(cluster.weight));
            all += (all.empty() ? "" : ", ") + table.str();
        }
        w.line("clusters", "[" + all + "]");
    }
    if (s.respond) {
        InlineTable table;
        table.add("status", literal(s.respond->status));
        table.add("body", literal(s.respond->body));
        table.add("content_type", literal(s.respond->content_type));
        w.line("respond", table.str());
    }
    if (s.redirect) w.line("redirect", redirect_table(*s.redirect));
}

// What only says something beside another value is left out without it, as the reader wants it.
void write_retry(const RetrySettings& s, bool hedged, Writer& w) {
    const bool repeats = s.attempts > 1;
    w.section("[route.retry]");
    w.line("attempts", literal(s.attempts));
    if (repeats) w.line("per_try_timeout", literal(s.per_try_timeout));
    w.line("on", literal_list(conditions_of(s.on)));
    if (repeats) {
        InlineTable backoff;
        backoff.add("base", literal(s.backoff_base));
        backoff.add("max", literal(s.backoff_max));
        w.line("backoff", backoff.str());
    }
    if (repeats || hedged) {
        InlineTable budget;
        budget.add("ratio", literal(s.budget_ratio));
        budget.add("min_per_second", literal(s.budget_min_per_second));
        w.line("budget", budget.str());
    }
    w.line("max_body", literal(s.max_body));
}

void write_hedge(const HedgeSettings& s, Writer& w) {
    w.section("[route.hedge]");
    w.line("after", literal(hedge_after(s)));
    if (s.percentile > 0) w.line("fallback", literal(s.fallback));
}

void write_rate_limit(const RateLimitSettings& s, Writer& w) {
    w.section("[route.rate_limit]");
    w.line("rate", literal(s.rate));
    if (s.burst > 0) w.line("burst", literal(s.burst));
    if (s.key.kind == RateKeyKind::kNone) return;
    w.line("key", literal(config::to_string(s.key)));
    w.line("max_keys", literal(s.max_keys));
}

void write_idempotency(const IdempotencySettings& s, Writer& w) {
    std::vector<std::string> scope;
    for (const ScopeEntry& entry : s.scope)
        scope.push_back(entry.as_set);
    w.section("[route.idempotency]");
    w.line("header", literal(s.header));
    w.line("syntax", word(kKeySyntaxes, s.syntax));
    w.line("require", literal(s.require));
    w.line("methods", literal_list(s.methods));
    w.line("scope", literal_list(scope));
    w.line("window", literal(s.window));
    w.line("store", literal(s.store));
    w.line("in_flight", word(kInFlights, s.in_flight));
    w.line("wait_timeout", literal(s.wait_timeout));
    w.line("max_request", literal(s.max_request));
    w.line("max_response", literal(s.max_response));
    w.line("on_store_error", word(kOnStoreErrors, s.on_store_error));
    w.line("on_unknown", word(kOnUnknowns, s.on_unknown));
    w.line("record", word(kRecords, s.record));
    w.line("policy_url", literal(s.policy_url));
}

void write_batch(const BatchSettings& s, Writer& w) {
    w.section("[route.batch]");
    w.line("format", word(kBatchFormats, s.format));
    w.line("path", literal(s.path));
    w.line("max_items", literal(s.max_items));
    w.line("max_bytes", literal(s.max_bytes));
    w.line("linger", literal(s.linger));
    if (s.format != BatchFormat::kJsonRpc) w.line("envelope", literal(s.envelope));
    w.line("split_on_failure", literal(s.split_on_failure));
}

void write_route_policies(const RouteSettings& s, Writer& w) {
    if (s.retry) write_retry(*s.retry, s.hedge.has_value(), w);
    if (s.hedge) write_hedge(*s.hedge, w);
    if (s.rate_limit) write_rate_limit(*s.rate_limit, w);
    if (s.concurrency) {
        w.section("[route.concurrency]");
        w.line("max", literal(s.concurrency->max));
        w.line("min", literal(s.concurrency->min));
    }
    if (s.fault) {
        w.section("[route.fault]");
        w.line("percent", literal(s.fault->percent));
        w.line("delay", literal(s.fault->delay));
        if (s.fault->abort > 0) w.line("abort", literal(s.fault->abort));
    }
    if (s.idempotency) write_idempotency(*s.idempotency, w);
    if (s.collapse) {
        w.section("[route.collapse]");
        w.line("vary", literal_list(s.collapse->vary));
    }
    if (s.batch) write_batch(*s.batch, w);
}

// The plain keys first: TOML gives those that follow a sub-table's header to the sub-table.
void write_route(const RouteSettings& s, Writer& w) {
    w.section("[[route]]");
    w.line("name", literal(s.name));
    w.line("listener", literal(s.listener));
    w.line("match", match_table(s.match, w));
    write_target(s, w);
    w.line("timeout", literal(s.timeout));
    InlineTable rewrite;
    if (s.rewrite.prefix) rewrite.add("prefix", literal(*s.rewrite.prefix));
    if (!s.rewrite.host.empty()) rewrite.add("host", literal(s.rewrite.host));
    if (!rewrite.empty()) w.line("rewrite", rewrite.str());
    InlineTable headers;
    headers.add("request", rules_table(s.request_headers, w));
    headers.add("response", rules_table(s.response_headers, w));
    w.line("headers", headers.str());
    if (s.mirror) {
        InlineTable mirror;
        mirror.add("cluster", literal(s.mirror->cluster));
        mirror.add("percent", literal(s.mirror->percent));
        w.line("mirror", mirror.str());
    }
    write_route_policies(s, w);
}

void write_health(const HealthSettings& s, Writer& w) {
    w.section("[cluster.health]");
    w.line("kind", word(kHealthKinds, s.kind));
    if (s.kind == HealthKind::kHttp) {
        w.line("path", literal(s.path));
        if (!s.host.empty()) w.line("host", literal(s.host));
    }
    w.line("interval", literal(s.interval));
    w.line("timeout", literal(s.timeout));
    const bool counts = s.detector == HealthDetectorKind::kCount;
    if (counts) w.line("unhealthy_after", literal(s.unhealthy_after));
    w.line("healthy_after", literal(s.healthy_after));
    w.line("detector", word(kHealthDetectors, s.detector));
    if (!counts) w.line("phi_threshold", literal(s.phi_threshold));
}

void write_cluster_policies(const ClusterSettings& s, Writer& w) {
    if (s.health) write_health(*s.health, w);
    if (s.outlier) {
        w.section("[cluster.outlier]");
        w.line("consecutive_failures", literal(s.outlier->consecutive_failures));
        w.line("ejection", literal(s.outlier->ejection));
        w.line("max_ejected_percent", literal(s.outlier->max_ejected_percent));
    }
    w.section("[cluster.limits]");
    w.line("max_connections", literal(s.limits.max_connections));
    w.line("max_pending", literal(s.limits.max_pending));
    w.line("max_requests", literal(s.limits.max_requests));
    w.line("hold", literal(s.limits.hold));
    w.section("[cluster.channel]");
    w.line("mode", word(kChannelModes, s.channel.mode));
    w.line("connections", literal(s.channel.connections));
    w.line("depth", literal(s.channel.depth));
    w.line("stall_timeout", literal(s.channel.stall_timeout));
}

void write_cluster(const ClusterSettings& s, Writer& w) {
    w.section("[[cluster]]");
    w.line("name", literal(s.name));
    if (!s.endpoints.empty()) w.line("endpoints", literal_list(s.endpoints));
    if (s.discover) w.line("discover", literal(config::to_string(*s.discover)));
    w.line("balance", word(kBalances, s.balance));
    if (s.hash_key) w.line("hash_key", literal(config::to_string(*s.hash_key)));
    w.line("connect_timeout", literal(s.connect_timeout));
    w.line("read_timeout", literal(s.read_timeout));
    w.line("idle_timeout", literal(s.idle_timeout));
    w.line("panic_percent", literal(s.panic_percent));
    write_cluster_policies(s, w);
}

// Only the keys of its kind: others are errors.
void write_store(const StoreSettings& s, Writer& w) {
    w.section("[store." + key_text(s.name) + "]");
    w.line("kind", word(kStoreKinds, s.kind));
    if (s.kind == StoreKind::kRedis) {
        w.line("url", w.url(s.url));
        w.line("operation_timeout", literal(s.operation_timeout));
        w.line("connect_timeout", literal(s.connect_timeout));
        w.line("prefix", literal(s.prefix));
    }
    if (s.kind == StoreKind::kLog) {
        w.line("path", literal(s.path));
        w.line("sync", word(kSyncModes, s.sync));
        w.line("segment_bytes", literal(s.segment_bytes));
    }
    if (s.kind != StoreKind::kRedis) w.line("max_memory", literal(s.max_memory));
    w.line("max_waiting", literal(s.max_waiting));
}

}  // namespace

std::string to_toml(const Settings& settings, Secrets secrets) {
    Writer writer(secrets);
    write_process(settings, writer);
    for (const ListenerSettings& listener : settings.listeners)
        write_listener(listener, writer);
    for (const RouteSettings& route : settings.routes)
        write_route(route, writer);
    for (const ClusterSettings& cluster : settings.clusters)
        write_cluster(cluster, writer);
    for (const StoreSettings& store : settings.stores)
        write_store(store, writer);
    return writer.take();
}

}  // namespace outrider::config
