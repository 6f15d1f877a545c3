//! Bugs that are planted to prove that the simulation finds them.

/// Which bug a history has. Each stands for a mistake that is easily made in
/// the code that it changes from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The node acknowledges a write when it is in its own log.
    AnswerBeforeCommit,
    /// Members acknowledge entries before they are on disk.
    AnswerBeforeSync,
    /// A write whose outcome is unknown counts as refused, and so is repeated.
    UnknownAsRefused,
    /// Linearizable reads do without a barrier.
    ReadWithoutBarrier,
    /// A watch that is resumed begins one revision late.
    ResumeLate,
    /// A watch that is resumed begins one revision early.
    ResumeEarly,
    /// Voters do not ask how much a candidate has.
    VoteForAnyone,
    /// Voters forget whom they voted for.
    VoteTwice,
    /// The barrier of reads changes nothing, so nothing is replicated.
    EmptyBarrier,
    /// Statements are done whoever has claimed the store meanwhile.
    SkipEpochGuard,
}

impl Plant {
    /// Those of histories, by their names.
    pub const ALL: [(&'static str, Plant); 10] = [
        ("answer-before-commit", Plant::AnswerBeforeCommit),
        ("answer-before-sync", Plant::AnswerBeforeSync),
        ("unknown-as-refused", Plant::UnknownAsRefused),
        ("read-without-barrier", Plant::ReadWithoutBarrier),
        ("resume-late", Plant::ResumeLate),
        ("resume-early", Plant::ResumeEarly),
        ("vote-for-anyone", Plant::VoteForAnyone),
        ("vote-twice", Plant::VoteTwice),
        ("empty-barrier", Plant::EmptyBarrier),
        ("skip-epoch-guard", Plant::SkipEpochGuard),
    ];

    /// The bug of that name.
    pub fn named(name: &str) -> Option<Plant> {
        Plant::ALL.iter().find(|(known, _)| *known == name).map(|(_, plant)| *plant)
    }
}
