package transit

import (
	"context"
	"time"
)

// Operation is what a request asks of Vault, for [Config.Observe]. These are all
// there are: unlike a path, it may be the label of a metric.
type Operation string

const (
	OpLogin     Operation = "login"
	OpEncrypt   Operation = "encrypt"
	OpDecrypt   Operation = "decrypt"
	OpRewrap    Operation = "rewrap"
	OpRotate    Operation = "rotate"
	OpKeyRead   Operation = "key_read"
	OpKeyConfig Operation = "key_config"
	OpTrim      Operation = "trim"
)

// observed sends the request one time and tells Observe of it.
func (c *Client) observed(ctx context.Context, r request) *Error {
	if c.observe == nil {
		return c.once(ctx, r)
	}
	r.answered = new(int)
	began := time.Now()
	failure := c.once(ctx, r)
	status := *r.answered
	if failure != nil {
		status = failure.Status // 0 too when headers came and the body did not
	}
	c.observe(r.op, status, time.Since(began))
	return failure
}
