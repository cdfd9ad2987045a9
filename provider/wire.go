package provider

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	grpcencoding "google.golang.org/grpc/encoding"
	grpcproto "google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	"github.com/secretmanager-io/secretmanager/internal/failure"
)

// A unary handler of gRPC reads the whole request before it calls this package, refuses a request that is too long with
// ResourceExhausted, and returns before the response is sent. So the server handles each call as a stream with one
// message in each direction, which is the same on the wire.

const (
	// window is how many bytes of a request the driver may send before the handler reads it.
	window = 64 << 10
	// maxReceiving bounds the requests longer than the window that are read at a time. Each takes three copies while it is
	// read.
	maxReceiving = 2
	// receiveTimeout is when an incomplete request no longer prevents others from being read.
	receiveTimeout = 2 * time.Second
	// stallTimeout is when an incomplete request fails and its memory is freed. Until then, maxReceiving more requests can
	// be read in each receiveTimeout. The driver runs on the same node, and has the whole request when it starts to send.
	stallTimeout = 3 * receiveTimeout
	// sendTimeout is when a response counts as sent even if gRPC has not reported it, as after a broken connection.
	sendTimeout = 30 * time.Second
)

// rawStream is the transport stream of gRPC, which can read the length of a message before the message.
type rawStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// receive reads a request. It refuses a request longer than maxRequest without reading it. A request longer than the
// window waits for its turn until the context ends, with no more than the window in memory; then it must arrive within
// stallTimeout.
func (s *Server) receive(ctx context.Context, stream grpc.ServerStream, in proto.Message) error {
	raw, ok := grpc.ServerTransportStreamFromContext(stream.Context()).(rawStream)
	if !ok {
		return failure.Internal.New(readingRequest, "this version of gRPC does not expose the length of a message",
			"that the provider was tested, and report it")
	}
	var header [5]byte // a flag for compression, and the length
	if err := raw.ReadMessageHeader(header[:]); err != nil {
		return err
	}
	length := int64(binary.BigEndian.Uint32(header[1:]))
	read := raw.Read
	switch {
	case header[0] != 0:
		return unreadable([]string{"it is compressed"})
	case length > maxRequest:
		return tooLarge(fmt.Errorf("it has %d bytes, more than the limit of %s", length, bytesText(maxRequest)))
	case length > window:
		select {
		case s.receiving <- struct{}{}:
		case <-ctx.Done():
			return s.provider.timeoutFailure(&request{}, "waiting to read the request")
		}
		release := sync.OnceFunc(func() { <-s.receiving })
		defer release()
		defer time.AfterFunc(receiveTimeout, release).Stop()
		read = func(n int) (mem.BufferSlice, error) { return readWithin(stallTimeout, raw, n) }
	}
	data, err := read(int(length))
	if err != nil {
		return err
	}
	defer data.Free()
	if proto.Unmarshal(data.Materialize(), in) != nil {
		return unreadable([]string{"it is not a message of the protocol"})
	}
	return nil
}

// readWithin reads n bytes of a stream, or fails after the timeout. In that case the read ends with the stream, and the
// stream ends with the call.
func readWithin(timeout time.Duration, raw rawStream, n int) (mem.BufferSlice, error) {
	type result struct {
		data mem.BufferSlice
		err  error
	}
	done := make(chan result, 1)
	go func() {
		data, err := raw.Read(n)
		done <- result{data, err}
	}()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.data, r.err
	case <-timer.C:
		go func() {
			r := <-done
			r.data.Free()
		}()
		return nil, failure.MountTimeout.New(readingRequest, fmt.Sprintf("the request was not complete within %s", timeout),
			"the load of the node, and that nothing but the driver connects to the provider's socket")
	}
}

// send sends a response. If gRPC reports when a response of that length is sent, send takes over the grants and
// releases them then.
func send(stream grpc.ServerStream, out proto.Message, g *memoryGrants) error {
	data, err := proto.Marshal(out)
	if err != nil {
		return err
	}
	m := &message{data: data}
	if mem.IsBelowBufferPoolingThreshold(cap(data)) {
		return stream.SendMsg(m) // gRPC does not report when a short message is sent
	}
	grants := *g
	*g = memoryGrants{}
	timer := time.AfterFunc(sendTimeout, grants.release)
	m.sent = func() {
		if timer.Stop() {
			grants.release()
		}
	}
	if err := stream.SendMsg(m); err != nil {
		m.sent()
		return err
	}
	return nil
}

// message is a marshaled response. It is also the buffer pool of its bytes: gRPC returns them to the pool when it has
// written them.
type message struct {
	data []byte
	sent func()
}

func (m *message) Get(n int) *[]byte { return mem.DefaultBufferPool().Get(n) }
func (m *message) Put(*[]byte)       { m.sent() }

// codec is gRPC's codec, except that it passes a message through as it is.
type codec struct{ grpcencoding.CodecV2 }

func newCodec() codec { return codec{grpcencoding.GetCodecV2(grpcproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*message); ok {
		return mem.BufferSlice{mem.NewBuffer(&m.data, m)}, nil
	}
	return c.CodecV2.Marshal(v)
}
