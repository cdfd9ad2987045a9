package transit

import (
	"context"
	"time"
)

// Operation is the kind of a request, for [Config.Observe]. It may be the label of a
// metric.
type Operation string

// All operations.
const (
	OpLogin     Operation = "login"
	OpEncrypt   Operation = "encrypt"
	OpDecrypt   Operation = "decrypt"
	OpRewrap    Operation = "rewrap"
	OpRotate    Operation = "rotate"
	OpKeyRead   Operation = "key_read"
	OpKeyList   Operation = "key_list"
	OpKeyConfig Operation = "key_config"
	OpTrim      Operation = "trim"

	OpSealStatus Operation = "seal_status"
)

// observed makes one attempt at the request and calls Observe.
func (c *Client) observed(ctx context.Context, r request) *Error {
	if c.observe == nil {
		return c.once(ctx, r)
	}
	r.status = new(int)
	began := time.Now()
	failure := c.once(ctx, r)
	status := *r.status
	if failure != nil {
		status = failure.Status // also 0 for a response without its body
	}
	c.observe(r.op, status, time.Since(began))
	return failure
}
