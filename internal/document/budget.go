package document

import (
	"context"
	"fmt"
)

// MaxWork bounds the work of one mount with its documents: nodes visited, and each [WorkUnit] bytes of content.
const (
	MaxWork  = 2_000_000
	WorkUnit = 16
)

// ErrBudget is the error of a mount that would use the CPU of the node for too long.
var ErrBudget = fmt.Errorf("the objects together read more than the limit of %d values of the documents", MaxWork)

// Budget is the work that a mount may still do.
type Budget struct {
	ctx       context.Context
	left      int
	unchecked int // work since the last look at the context
}

// NewBudget returns a budget of n that also ends with the context.
func NewBudget(ctx context.Context, n int) *Budget { return &Budget{ctx: ctx, left: n} }

// Left returns the rest of the budget. It is negative once the budget is exceeded.
func (b *Budget) Left() int { return b.left }

// Spend takes n off the budget, before the work is done.
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
