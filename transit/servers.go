package transit

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// connectTimeout bounds the connection to a server, including name resolution and TLS, while there are others.
	connectTimeout = 500 * time.Millisecond
	// A server that failed is checked after minCheck, and after up to maxCheck if it fails again and again.
	minCheck = time.Second
	maxCheck = time.Minute
	// checkTimeout bounds a health check.
	checkTimeout = 2 * time.Second
)

var errSlow = fmt.Errorf("no connection within %s", connectTimeout)

// server is a server of a Vault cluster.
type server struct {
	address string
	api     *api.Client // without token and namespace

	// The following fields are guarded by servers.mu.
	failures int       // in a row
	avoided  bool      // since it failed, until it responds
	failed   time.Time // the last time
	due      time.Time // of the next health check
	checking bool
}

// servers are the servers of a cluster.
type servers struct {
	all     []*server // the most preferred first
	now     func() time.Time
	avoided func(address string, err error) // Config.Avoided; may be nil

	mu sync.Mutex
}

// newServers returns the servers at the addresses. They share the connections of conf.
func newServers(conf *api.Config, addresses []string) (*servers, error) {
	s := &servers{now: time.Now}
	for _, address := range addresses {
		conf.Address = address
		client, err := api.NewClient(conf)
		if err != nil {
			return nil, err
		}
		// Drop what api.NewClient took from the environment: the Session determines token
		// and namespace.
		client.ClearToken()
		client.ClearNamespace()
		client.SetWrappingLookupFunc(func(string, string) string { return "" })
		s.all = append(s.all, &server{address: address, api: client})
	}
	return s, nil
}

// order returns the servers in the order in which to try them: those that did not fail, and then the others, beginning
// with the one whose failure is the oldest. It starts the health checks that are due.
func (s *servers) order() []*server {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := slices.Clone(s.all)
	slices.SortStableFunc(order, func(a, b *server) int {
		switch {
		case a.avoided && b.avoided:
			return a.failed.Compare(b.failed)
		case a.avoided:
			return 1
		case b.avoided:
			return -1
		}
		return 0
	})
	for _, one := range order {
		if one.avoided && !one.checking && !s.now().Before(one.due) {
			one.checking = true
			go s.check(one)
		}
	}
	return order
}

// check ends the avoidance of a server that is healthy. The requests of others do not wait for it, so a server that is
// still down costs nothing.
func (s *servers) check(one *server) {
	ctx, cancel := context.WithTimeout(context.Background(), checkTimeout)
	defer cancel()
	healthy := one.healthy(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	one.checking = false
	if healthy {
		one.avoided = false // failures remain, until a request succeeds
	} else {
		one.fail(s.now())
	}
}

// fail records a failure. The caller holds servers.mu.
func (one *server) fail(now time.Time) {
	one.failures++
	one.avoided, one.failed = true, now
	one.due = now.Add(min(minCheck<<min(one.failures-1, 16), maxCheck))
}

// report records the result of a request: nil if the server responded as a healthy one does.
func (s *servers) report(one *server, failure *Error) {
	s.mu.Lock()
	was := one.avoided
	if failure == nil {
		one.failures, one.avoided = 0, false
	} else {
		one.fail(s.now())
	}
	s.mu.Unlock()
	if failure != nil && !was && s.avoided != nil {
		s.avoided(one.address, failure.Err)
	}
}

// healthy reports whether a server responds and may be of use: it is initialized and unsealed. A standby is healthy,
// and so is one behind a proxy that denies the health check.
func (one *server) healthy(ctx context.Context) bool {
	req := one.api.NewRequest(http.MethodGet, "/v1/sys/health")
	resp, _ := one.api.RawRequestWithContext(ctx, req) //nolint:staticcheck // as in send
	if resp == nil || resp.Response == nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode < 500 && resp.StatusCode != statusSecondary
}

// Statuses of Vault Enterprise, of a disaster recovery secondary and a performance standby.
const (
	statusSecondary          = 472
	statusPerformanceStandby = 473
)

// blamesServer reports whether another server may succeed where this one received the request and failed.
func blamesServer(e *Error) bool {
	switch e.Status {
	case 0:
		return e.Transient || errors.Is(e.Err, ErrTLS)
	case statusSecondary, statusPerformanceStandby,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	// A standby that knows no leader.
	return e.Status == http.StatusInternalServerError && strings.Contains(e.Err.Error(), "active cluster node not found")
}

// Responding returns the address of a server of the cluster that responds, for clients that take only one. It is the
// first one, without a request, if there is no other, and if none responds.
func (c *Client) Responding(ctx context.Context) string {
	if len(c.servers.all) > 1 {
		for _, one := range c.servers.order() {
			limited, cancel := context.WithTimeout(ctx, checkTimeout)
			healthy := one.healthy(limited)
			cancel()
			if healthy {
				return one.address
			}
		}
	}
	return c.servers.all[0].address
}

// sendToOne sends the request to the servers in turn, until one of them may have received it. If there was no
// connection to any of them, the most preferred one of those that only took too long gets the time that a single server
// has.
func (c *Client) sendToOne(ctx context.Context, r request) *Error {
	order := c.servers.order()
	if len(order) == 1 {
		failure, _ := c.sendTo(ctx, order[0], r, 0)
		return failure
	}
	var all *Error
	limit := connectTimeout
	for i := 0; i < len(order); i++ {
		one := order[i]
		if i == len(c.servers.all) {
			limit = 0
		}
		failure, sent := c.sendTo(ctx, one, r, limit)
		switch {
		case failure == nil || failure.Status != 0 && !blamesServer(failure):
			c.servers.report(one, nil)
		case sent && blamesServer(failure), !sent && ctx.Err() == nil:
			c.servers.report(one, failure)
		}
		if failure == nil {
			return nil
		}
		slow := errors.Is(failure.Err, errSlow)
		failure.Err = fmt.Errorf("%w (at %s)", failure.Err, one.address)
		done := sent || ctx.Err() != nil
		if slow && !done && len(order) == len(c.servers.all) {
			order = append(order, one)
			continue
		}
		if all != nil && failure.Status == 0 {
			failure.Err = fmt.Errorf("%w; %w", all.Err, failure.Err)
			failure.Transient = failure.Transient || all.Transient
		}
		if all = failure; done {
			break
		}
	}
	return all
}

// sendTo makes one attempt at the request. It reports whether the server may have received it. If there is no
// connection within the limit, the error wraps errSlow. A limit of 0 means none: then it reports true.
func (c *Client) sendTo(ctx context.Context, one *server, r request, limit time.Duration) (failure *Error, sent bool) {
	client := one.api
	if r.namespace != "" {
		client = client.WithNamespace(r.namespace) // shares the connections
	}
	req := client.NewRequest(r.method, "/v1/"+r.path)
	req.ClientToken = r.token
	if req.Headers == nil {
		req.Headers = http.Header{} // NewRequest copies those of the client
	}
	AuditFrom(ctx).SetHeaders(req.Headers)
	r.inline.setHeaders(req.Headers)
	if r.in != nil {
		if err := req.SetJSONBody(r.in); err != nil {
			return &Error{Doing: r.doing, Address: c.address, Err: fmt.Errorf("making the request: %w", err)}, true
		}
	}
	var connected atomic.Bool
	connecting, cancel := context.WithCancelCause(context.WithValue(ctx, itemsKey{}, r.items))
	defer cancel(nil)
	if limit > 0 {
		timer := time.AfterFunc(limit, func() { cancel(errSlow) })
		defer timer.Stop()
		connecting = httptrace.WithClientTrace(connecting, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {
			timer.Stop()
			connected.Store(true)
		}})
	}
	resp, to, err := c.send(connecting, client, req, r)
	if !connected.Load() && errors.Is(context.Cause(connecting), errSlow) {
		err = errSlow // rather than "context canceled"
	}
	failure = c.readResponse(ctx, r, resp, err)
	if failure != nil && to != "" {
		failure.Err = fmt.Errorf("redirected to %s: %w", to, failure.Err)
	}
	return failure, connected.Load() || limit == 0
}
