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

// A unary call of gRPC reads the whole request before it asks anything of this
// package, refuses one that is too long with ResourceExhausted, and lets go of the
// response before it is sent. So the calls are served as streams of one message each
// way, which is the same to the driver.

const (
	// window is what the driver may send of a request before the call reads it.
	window = 64 << 10
	// maxReceiving is how many requests that are longer than the window are read at a
	// time: while one is, there are three copies of it.
	maxReceiving = 2
	// receiveTimeout is when a request that does not come to its end no longer keeps
	// others from being read.
	receiveTimeout = 2 * time.Second
	// stallTimeout is when a request that does not come to its end is given up, with
	// what has come of it: until then there can be maxReceiving more of them each
	// receiveTimeout. The driver has the whole of it at hand, on the same node.
	stallTimeout = 3 * receiveTimeout
	// sendTimeout is when a response counts as sent where gRPC does not say so, as it
	// does not of a connection that broke.
	sendTimeout = 30 * time.Second
)

// rawStream is what gRPC's own stream has. There the length of a message can be read
// before the message.
type rawStream interface {
	ReadMessageHeader(header []byte) error
	Read(n int) (mem.BufferSlice, error)
}

// receive reads a request. What is longer than the limit is refused unread. What is
// longer than a window waits for its turn until the context ends, and no more of it
// is in memory than that; then it has to come at once.
func (s *Server) receive(ctx context.Context, stream grpc.ServerStream, in proto.Message) error {
	raw, ok := grpc.ServerTransportStreamFromContext(stream.Context()).(rawStream)
	if !ok {
		return failure.Internal.New(readingRequest, "this version of gRPC does not expose the length of a message",
			"that the provider was tested, and report it")
	}
	var header [5]byte // compressed or not, and the length
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
		next := sync.OnceFunc(func() { <-s.receiving })
		defer next()
		defer time.AfterFunc(receiveTimeout, next).Stop()
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

// readWithin reads n bytes of a stream, or fails when they have not come in time. The
// read then ends with the stream, which ends when the call does.
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

// send sends a response, and releases what it holds once it is sent.
func send(stream grpc.ServerStream, out proto.Message, h *holds) error {
	data, err := proto.Marshal(out)
	if err != nil {
		return err
	}
	m := &message{data: data}
	if mem.IsBelowBufferPoolingThreshold(cap(data)) {
		return stream.SendMsg(m) // too short for gRPC to say when it is sent
	}
	held := *h
	*h = holds{}
	timer := time.AfterFunc(sendTimeout, held.release)
	m.sent = func() {
		if timer.Stop() {
			held.release()
		}
	}
	if err := stream.SendMsg(m); err != nil {
		m.sent()
		return err
	}
	return nil
}

// message is one as it is sent. It is the pool that its own bytes are returned to,
// which gRPC does when they have been written.
type message struct {
	data []byte
	sent func()
}

func (m *message) Get(n int) *[]byte { return mem.DefaultBufferPool().Get(n) }
func (m *message) Put(*[]byte)       { m.sent() }

// codec is gRPC's own, but for a message that is marshaled already.
type codec struct{ grpcencoding.CodecV2 }

func newCodec() codec { return codec{grpcencoding.GetCodecV2(grpcproto.Name)} }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if m, ok := v.(*message); ok {
		return mem.BufferSlice{mem.NewBuffer(&m.data, m)}, nil
	}
	return c.CodecV2.Marshal(v)
}
