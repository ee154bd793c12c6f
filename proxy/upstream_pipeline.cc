// A cluster's pipelined connections: which one a request rides on, when another is opened, and when an endpoint gets pooled
// connections instead.
#include "base/log.h"
#include "proxy/upstream.h"
#include "proxy/worker.h"

namespace outrider::proxy {

namespace {

// After a connection that could not be opened, or that ended before it answered anything.
constexpr Duration kOpenPause = std::chrono::seconds(1);

}  // namespace

UpstreamChannel* WorkerCluster::channel_for(const Ref<Endpoint>& endpoint, policy::ChannelDepth::Class cls) {
    if (settings_.channel.mode != config::ChannelMode::kPipelined || retired_ ||
        endpoint->index == Endpoint::kRemoved)
        return nullptr;
    policy::DepthLimits limits{.connections = settings_.channel.connections,
                               .depth = settings_.channel.depth,
                               .turn = loop_.turn_length()};
    if (!endpoint->pipeline) endpoint->pipeline = std::make_unique<EndpointPipeline>(limits);
    EndpointPipeline& pipeline = *endpoint->pipeline;
    const Instant now = loop_.now();
    if (!pipeline.support.may_pipeline(now)) return nullptr;
    if (pipeline.support.unfit()) limits.connections = 1;  // one may try again
    // The last connections of this worker's share are for what cannot ride.
    if (now < pipeline.open_after || (connections_max_ != 0 && open_ + 2 > connections_max_))
        limits.connections = std::min(limits.connections, pipeline.channels.size());
    pipeline.depth.configure(limits);
    for (UpstreamChannel* channel : pipeline.channels) {
        const bool accepting = channel->refusal(now) == policy::Channel::Refusal::kNone;
        if (accepting != channel->accepting) {
            channel->accepting = accepting;
            pipeline.depth.set_accepting(channel->number(), accepting);
        }
        if (channel->newly_stalled(now)) {
            ++pipeline.stalls;
            channel->cells.stalls->add();
        }
    }
    const policy::ChannelDepth::Choice choice = pipeline.depth.choose(cls, now, true);
    using Where = policy::ChannelDepth::Choice::Where;
    // Who has it opened does not wait for it.
    if (choice.where == Where::kOpen) open_channel(endpoint);
    if (choice.where != Where::kSocket) return nullptr;
    for (UpstreamChannel* channel : pipeline.channels) {
        if (channel->number() != choice.socket) continue;
        pipeline.depth.ride(choice.socket, cls, now);
        channel->cells.depth->add(1);
        channel->cells.requests->add();
        return channel;
    }
    return nullptr;
}

void WorkerCluster::open_channel(const Ref<Endpoint>& endpoint) {
    EndpointPipeline& pipeline = *endpoint->pipeline;
    const policy::Channel::Start start = pipeline.support.start(pipeline.after_break);
    pipeline.after_break = false;
    const policy::ChannelLimits limits{.depth = settings_.channel.depth,
                                       .stall_timeout = settings_.channel.stall_timeout};
    auto* channel =
        new UpstreamChannel(loop_, *this, limits_, scratch_, limits, start, pipeline.next_number++);
    channel->endpoint = endpoint;
    channel->cluster = Ref<WorkerCluster>(this);
    channel->cells = cells_.pipeline;
    ++endpoint->connections;
    ++open_;
    cells_.connections->add(1);
    pipeline.channels.push_back(channel);
    pipeline.depth.open(channel->number());
    pipeline.depth.set_accepting(channel->number(), false);  // until it stands
    channel->open(endpoint->address.address, {.connect = settings_.connect_timeout,
                                              .read = settings_.read_timeout,
                                              .idle = settings_.idle_timeout,
                                              .stall = settings_.channel.stall_timeout});
}

void WorkerCluster::on_channel_open(PipelinedChannel&) {}  // the next request finds it

void WorkerCluster::on_channel_answered(PipelinedChannel& answered, bool counts) {
    auto& channel = static_cast<UpstreamChannel&>(answered);
    EndpointPipeline& pipeline = *channel.endpoint->pipeline;
    channel.cells.depth->add(-1);
    pipeline.depth.answered(channel.number(), loop_.now(), counts);
    if (!channel.proved && channel.line().answered_pipelined() >= policy::PipelineSupport::kAnswersMin) {
        channel.proved = true;
        pipeline.support.proved();
    }
}

void WorkerCluster::on_channel_gone(PipelinedChannel& gone, bool start_alone) {
    auto& channel = static_cast<UpstreamChannel&>(gone);
    Endpoint& endpoint = *channel.endpoint;
    EndpointPipeline& pipeline = *endpoint.pipeline;
    channel.cells.depth->add(-static_cast<std::int64_t>(pipeline.depth.in_flight(channel.number())));
    pipeline.depth.close(channel.number());
    std::erase(pipeline.channels, &channel);
    --endpoint.connections;
    --open_;
    cells_.connections->add(-1);
    if (start_alone) pipeline.after_break = true;
    const Instant now = loop_.now();
    if (channel.line().answered() == 0) pipeline.open_after = now + kOpenPause;
    if (const auto unfit = pipeline.support.ended(channel.line(), now)) {
        channel.cells.fallbacks->add();
        log_warning("cluster '{}': endpoint {} takes pooled connections: {}", name_, endpoint.address.id,
                    policy::to_text(*unfit));
    }
    // Not from within the end of another exchange's connection.
    if (first_waiting_ != nullptr) [[unlikely]]
        loop_.schedule(*this, Duration(0));
}

void WorkerCluster::on_channel_closed(PipelinedChannel& channel) {
    delete static_cast<UpstreamChannel*>(&channel);
}

void WorkerCluster::retire_channels(Endpoint& endpoint) {
    if (!endpoint.pipeline) return;
    const std::vector<UpstreamChannel*> channels = endpoint.pipeline->channels;  // they leave it one by one
    for (UpstreamChannel* channel : channels)
        channel->retire();
}

void WorkerCluster::report_channels(const EndpointPipeline& pipeline, EndpointReport& out) const {
    out.channels = static_cast<std::uint32_t>(pipeline.channels.size());
    for (const UpstreamChannel* channel : pipeline.channels)
        out.channel_depth += channel->line().in_flight();
    out.stalls = pipeline.stalls;
    if (pipeline.support.unfit() && !pipeline.support.may_pipeline(loop_.now()))
        out.fallback = policy::to_text(*pipeline.support.unfit());
}

}  // namespace outrider::proxy
