package document

import (
	"context"
	"fmt"
)

// MaxWork bounds the work of one mount with its documents: visited nodes, and content in units of [WorkUnit] bytes.
const (
	MaxWork  = 2_000_000
	WorkUnit = 16
)

// ErrBudget means that a mount would use too much CPU time of the node.
var ErrBudget = fmt.Errorf("the objects together read more than the limit of %d values of the documents", MaxWork)

// Budget is the remaining work of a mount. It is not safe for concurrent use.
type Budget struct {
	ctx       context.Context
	left      int
	unchecked int // work since the last check of the context
}

// NewBudget returns a budget of n. Spend also fails after the context has ended.
func NewBudget(ctx context.Context, n int) *Budget { return &Budget{ctx: ctx, left: n} }

// Left returns the rest of the budget. It is negative once the budget is exceeded.
func (b *Budget) Left() int { return b.left }

// Spend subtracts n from the budget. Call it before the work.
func (b *Budget) Spend(n int) error {
	b.left -= n
	if b.left < 0 {
		return ErrBudget
	}
	if b.unchecked += n; b.unchecked >= 10_000 {
		b.unchecked = 0
		return b.ctx.Err()
	}
	return nil
}
